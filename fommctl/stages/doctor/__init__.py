"""`fommctl doctor`: will fommctl work here and fast, and if not, what is to be done?

Nothing here may fail, whatever is broken: each check is a function of its own whose failure is itself a finding, and
what can crash or hang (imports, drivers, plugins, codecs) is looked at in processes of their own (`probe`, `child`,
`looking`). What is imported here is Python's own library, but for `packaging` inside one function.
"""
