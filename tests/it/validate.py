"""Validates TOML files with the package jsonschema, which has nothing to do with fedplug.

Reads a JSON list of pairs from stdin, a schema's path and a TOML file's path. Writes a JSON list with what is wrong with
each file: the way to the value, and the keyword of the schema that refuses it."""

import json
import sys

from jsonschema import Draft202012Validator

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib


def faults(schema_path, file_path):
    with open(schema_path, encoding="utf-8") as file:
        schema = json.load(file)
    with open(file_path, "rb") as file:
        experiment = tomllib.load(file)
    Draft202012Validator.check_schema(schema)
    errors = Draft202012Validator(schema).iter_errors(experiment)
    return sorted(".".join(map(str, error.absolute_path)) + " " + error.validator for error in errors)


json.dump([faults(*pair) for pair in json.load(sys.stdin)], sys.stdout)
