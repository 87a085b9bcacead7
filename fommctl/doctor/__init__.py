"""`fommctl doctor`: does fommctl work here and fast, and if not, what is to be done?

Doctor must run where nearly everything is broken: this process imports the standard library and `packaging` only, and
everything that loads other libraries runs in a child process, whose crash is a row of the report.
"""
