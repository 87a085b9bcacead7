"""`fommctl doctor`: checks whether fommctl works on this machine and how fast, with advice for each problem.

It must run even if nearly everything is broken: this process imports only the standard library and `packaging`; checks
that load other libraries run in a child process, whose crash becomes a row of the report.
"""
