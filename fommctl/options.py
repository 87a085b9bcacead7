"""Options: declared once, as fields of a frozen configuration class, and parsed in the same way from every source.

A field with a `typer.Option` or `typer.Argument` in its annotation is an option of the command (`fommctl.cli.options`
builds the command's signature from it), a field of job files and sidecars, and a keyword in Python:

    size: Annotated[int | None, Field(gt=0), typer.Option(help="Side of the model's frames in pixels.")] = None

A field without such an annotation is only a job field and a keyword.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import annotated_types
import typer
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import core_schema
from typer.models import ArgumentInfo, OptionInfo

from fommctl.errors import ProblemsError, UsageError
from fommctl.presets.config import describe, did_you_mean, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Precision = Annotated[Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="auto, fp32, bf16 or fp16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Seed = Annotated[int, Field(ge=0, lt=2**63), typer.Option(help="Random seed.")]
Sets = Annotated[
    tuple[str, ...],
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the preset (a.b=c); repeatable."),
]

BackendOptions = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda given: assignments(given)),
    typer.Option(
        "-O",
        "--option",
        metavar="NAME=VALUE",
        help="Option of the model's family; repeatable. --help lists them if --model or --preset is given.",
    ),
]
"""Texts `NAME=VALUE`; in job files and Python also a mapping."""

T = TypeVar("T")
_EXPECTED: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    str: "text",
}
LONGEST_NUMBER = 30
"""Most characters of a number: more than any option needs, and few enough to parse instantly."""
_BOUNDS = (annotated_types.Ge, annotated_types.Gt, annotated_types.Le, annotated_types.Lt)


@dataclass(frozen=True)
class Reads:
    """Annotation of a field that is parsed from text by a function, such as a time or a frame rate.

    Numbers are converted to text first; values that already have the field's type are kept.
    """

    function: Callable[[str], Any]
    """Returns the value. Raises UsageError."""
    default: str | None = None
    """Text that --help shows for a default of None."""
    as_text: bool = False
    """Whether the text itself is kept, and the function only checks it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def _read(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return value
        try:
            read = self.function(str(value))
            return str(value) if self.as_text else read
        except UsageError as error:
            # What pydantic collects; `_problem` takes the UsageError out again.
            raise ValueError(error) from error


@dataclass(frozen=True)
class OptionField:
    """One field of a configuration class."""

    name: str
    kind: Any
    """Its type without None; for a tuple, the type of its items."""
    many: bool
    """Whether it is a tuple of any length."""
    info: OptionInfo | ArgumentInfo | None
    """The declaration for the command line; None if it is not an option there."""
    reads: Reads | None
    bounds: tuple[Any, ...]
    required: bool
    default: Any

    @property
    def flag(self) -> str:
        """Name in messages: `--driving-crop`, `SOURCE`, or the field's name if it is not on the command line."""
        if isinstance(self.info, ArgumentInfo):
            return (self.info.metavar or self.name).removesuffix("...").upper()
        if self.info is None:
            return self.name
        return next((name.split("/")[0] for name in self.declared if name.startswith("--")), f"--{dashed(self.name)}")

    @property
    def declared(self) -> tuple[str, ...]:
        """Names in the declaration, such as `-o` and `--output`."""
        if self.info is None or isinstance(self.info, ArgumentInfo):
            return ()
        # typer stores the first of several names in the place of a default.
        first = () if self.info.default is ... else (str(self.info.default),)
        return (*first, *(self.info.param_decls or ()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names in job files: the field's, and the command line's if it differs."""
        return tuple(dict.fromkeys((self.name, self.flag.removeprefix("--").replace("-", "_").lower())))

    @property
    def choices(self) -> tuple[str, ...]:
        """The permitted words of a choice; empty for other types."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def expected(self) -> str:
        """Hint for an invalid value: what the option accepts."""
        if self.choices:
            return f"Choices: {', '.join(self.choices)}."
        if self.bounds:
            return f"Give a {'whole number' if self.kind is int else 'number'} {self._range}."
        what = _EXPECTED.get(self.kind, "text")
        return f"Give {what}, or a list." if self.many else f"Give {what}."

    @property
    def _range(self) -> str:
        names = {type(bound).__name__: bound for bound in self.bounds}
        limits = {name: getattr(bound, name.lower()) for name, bound in names.items()}
        least = f"from {limits['Ge']}" if "Ge" in limits else f"above {limits.get('Gt', 0) or 'zero'}"
        if "Lt" in limits:
            return f"{least}, below {'2**63' if limits['Lt'] == 2**63 else limits['Lt']}"
        if "Le" in limits:
            return f"{least} to {limits['Le']}"
        return f"{least} on" if "Ge" in limits else least


def option(panel: str, help: str, *names: str, **more: Any) -> Any:
    """Declare an option.  panel: its heading in --help.  names: its names, if they differ from the field's."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def dashed(name: str) -> str:
    """Convert a field's name to an option's, without dashes in front: `driving_crop` to `driving-crop`."""
    return name.replace("_", "-")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def configuration(cls: type[T]) -> type[T]:
    """Make a frozen dataclass whose constructor checks all values and reports all problems at once.

    An optional method `conflicts` yields a UsageError for each group of options that exclude each other; it is called
    once each field is valid by itself. The constructor raises UsageError, or ProblemsError for several problems.
    """
    # Limits of numbers in the command line's declaration apply everywhere.
    hints = get_type_hints(cls, vars(sys.modules[cls.__module__]), include_extras=True)
    cls.__annotations__ = {name: _with_least(hint) for name, hint in hints.items()}
    config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    made: Any = pydantic_dataclass(frozen=True, kw_only=True, config=config)(cls)
    checked = made.__init__

    @functools.wraps(checked)
    def init(self: Any, **values: Any) -> None:
        known = option_fields(made)
        absurd: dict[str, UsageError] = {}
        sensible: dict[str, Any] = {}
        for name, value in values.items():
            field = known.get(name)
            if (error := _absurd(field, value)) is not None:
                absurd[name] = error
            elif field is not None and field.many and field.reads is None and isinstance(value, str | Path):
                # One text or path stands for a list of one.
                sensible[name] = (value,)
            else:
                sensible[name] = value
        try:
            checked(self, **sensible)
            problems = [*absurd.values()] or list(getattr(self, "conflicts", tuple)())
        except ValidationError as invalid:
            problems = _problems(made, invalid, absurd)
        if problems:
            raise together(problems)

    made.__init__ = init
    return made  # type: ignore[no-any-return]


def as_json(config: DataclassInstance) -> dict[str, Any]:
    """Convert a configuration to JSON values by name, with paths, times and rates as text."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(each) for each in value]
        return value if value is None or isinstance(value, int | float | str) else str(value)

    return {field.name: plain(getattr(config, field.name)) for field in fields(config)}


def option_fields(cls: type) -> Mapping[str, OptionField]:
    """Return the fields of a configuration class by name, in order."""
    return _option_fields(cls)


@functools.cache
def _option_fields(cls: Any) -> Mapping[str, OptionField]:
    found: dict[str, OptionField] = {}
    for name, field in cls.__pydantic_fields__.items():
        kind, many = _plain(field.annotation)
        infos = [item for item in field.metadata if isinstance(item, OptionInfo | ArgumentInfo)]
        reads = [item for item in field.metadata if isinstance(item, Reads)]
        found[name] = OptionField(
            name=name,
            kind=kind,
            many=many,
            info=infos[0] if infos else None,
            reads=reads[0] if reads else None,
            bounds=tuple(item for item in field.metadata if isinstance(item, _BOUNDS)),
            required=field.is_required(),
            default=None if field.is_required() or field.default_factory else field.default,
        )
    return found


def field_named(cls: type, name: str) -> OptionField | None:
    """Find a field by its name in a job file: `driving-crop` is `driving_crop`, `Source` is `source`, `view` is
    `views`."""
    plain = name.strip().replace("-", "_").lower()
    return next((field for field in option_fields(cls).values() if plain in field.names), None)


def with_options(cls: type) -> Callable[[T], T]:
    """Replace `**options` in a function's signature by all fields of a configuration class."""

    def decorate(function: T) -> T:
        signature = inspect.signature(function)  # type: ignore[arg-type]
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        taken = {parameter.name for parameter in own}
        hints = inspect.get_annotations(cls, eval_str=True)
        more = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=_bare(hints[name])
            )
            for name, field in option_fields(cls).items()
            if name not in taken
        ]
        function.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        return function

    return decorate


def listed(flag: str) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of comma-separated names.  flag: the option, for messages."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in text.split(",") if part.strip())
        if not names:
            raise UsageError(f"{flag} is empty", "Give names separated by commas, or leave it out.")
        return names

    return read


def assignments(given: Any) -> Any:
    """Convert a mapping to `NAME=VALUE` texts; return anything else unchanged."""
    if not isinstance(given, Mapping):
        return given
    texts = {name: json.dumps(value) if isinstance(value, bool | float) else value for name, value in given.items()}
    return tuple(f"{name}={value}" for name, value in texts.items())


def backend_options(cls: type[BaseModel] | None, given: Sequence[str], family: str) -> BaseModel | None:
    """Parse the options of a backend from `NAME=VALUE` texts; None for a family without options.

    Raises UsageError, or ProblemsError for several problems.
    """
    known = {} if cls is None else cls.model_fields
    values: dict[str, str] = {}
    problems: list[UsageError] = []
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            problems.append(UsageError(f"-O {text[:60]} has no value", "Write -O NAME=VALUE."))
        elif name not in known:
            hint = f"Options: {', '.join(known)}." if known else "Leave out -O."
            problems.append(UsageError(f"{family} models have no option '{name}'{did_you_mean(name, known)}", hint))
        values[name] = value.strip()
    if cls is None or problems:
        if problems:
            raise together(problems)
        return None
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        first = {str(each["loc"][0]): each for each in reversed(error.errors(include_url=False))}
        raise together(
            [
                UsageError(f"-O {name} cannot be '{values[name][:60]}'", f"{each['msg']}.")
                for name, each in first.items()
            ]
        ) from error


def listed_options(cls: type[BaseModel] | None) -> dict[str, dict[str, str | None]]:
    """Return type, default and help of each option of a backend, as text."""
    found = {}
    for name, field in ({} if cls is None else cls.model_fields).items():
        kind = _plain(field.annotation)[0]
        words = "|".join(map(str, get_args(kind))) if get_origin(kind) is Literal else _EXPECTED.get(kind, "text")
        default = None if field.default is None else assignments({"": field.default})[0].removeprefix("=")
        found[name] = {"type": words, "default": default, "help": field.description}
    return found


def together(problems: Sequence[UsageError]) -> UsageError:
    """Combine problems into one error."""
    if len(problems) == 1:
        return problems[0]
    lines = [f"{each.message}. {each.hint or ''}".rstrip() for each in problems]
    return ProblemsError("\n  ".join([f"{len(problems)} problems:", *lines]), problems=problems)


def _with_least(hint: Any) -> Any:
    infos = [
        item for item in getattr(hint, "__metadata__", ()) if isinstance(item, OptionInfo) and item.min is not None
    ]
    return Annotated[hint, Field(ge=infos[0].min)] if infos else hint


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _plain(annotation: Any) -> tuple[Any, bool]:
    """Return the type without None, or the type of a tuple's items, and whether it is a tuple."""
    annotation = _bare(annotation)
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(kind for kind in get_args(annotation) if kind is not NoneType)
    annotation = _bare(annotation)
    if get_origin(annotation) is tuple:
        return _plain(get_args(annotation)[0])[0], True
    return annotation, False


def _absurd(field: OptionField | None, value: Any) -> UsageError | None:
    """Return the error for absurd values: text with a null character, and values that pydantic would accept as a number
    (True, or too many digits)."""
    if field is not None and isinstance(value, str | Path) and "\0" in str(value):
        return UsageError(f"{field.flag} contains a null character", "Check what generated it.")
    if field is None or field.kind not in (int, float) or field.reads is not None:
        return None
    long = isinstance(value, str) and (len(value) > LONGEST_NUMBER or "_" in value)
    if long or isinstance(value, bool):
        return _wrong(field, value)
    whole = value.strip().removeprefix("-") if isinstance(value, str) else value
    number = int(whole) if isinstance(whole, int) or (isinstance(whole, str) and whole.isdecimal()) else 0
    return _wrong(field, value) if not -(2**63) < number < 2**63 else None


def _problems(cls: type, error: ValidationError | None, absurd: Mapping[str, UsageError]) -> list[UsageError]:
    """Return a problem for each invalid field, in the order of the fields, then for each unknown field."""
    fields = option_fields(cls)
    first: dict[str, Any] = {}
    for each in () if error is None else error.errors(include_url=False):
        # A field of several types has an error for each of them.
        first.setdefault(str(each["loc"][0]), each)
    known = [absurd.get(name) or _problem(fields[name], first[name]) for name in fields if name in {**first, **absurd}]
    return [*known, *(_unknown(cls, name) for name in first if name not in fields)]


def _problem(field: OptionField, error: Mapping[str, Any]) -> UsageError:
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, ValueError) and cause.args and isinstance(cause.args[0], UsageError):
        return cause.args[0]
    if error["type"] == "missing":
        what = "argument" if isinstance(field.info, ArgumentInfo) else "option"
        return UsageError(f"missing {what} '{field.flag}'", getattr(field.info, "help", None) or field.expected)
    return _wrong(field, error["input"])


def _wrong(field: OptionField, value: Any) -> UsageError:
    number = isinstance(value, str) and re.fullmatch(r"[-+.eE0-9]{1,30}", value)
    shown = f"'{value[:60]}'" if isinstance(value, str) and not number else str(value) if number else describe(value)
    close = nearest(str(value), field.choices) if field.choices else None
    return UsageError(
        f"{field.flag} cannot be {shown}", f"Did you mean {close}? {field.expected}" if close else field.expected
    )


def _unknown(cls: type, name: str) -> UsageError:
    command = cls.__name__.removesuffix("Config").lower()
    return UsageError(
        f"{command} has no option '{name}'{did_you_mean(name, option_fields(cls))}",
        f"'fommctl {command} --help' lists its options; write them with underscores.",
    )
