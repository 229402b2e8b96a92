"""The syntax of command lines, common to all commands.

flags    a flag, and the parser of argv        values   what a flag's text may be
times    moments as a person writes them       common   flags that several commands share
"""
