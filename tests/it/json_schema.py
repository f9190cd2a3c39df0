"""Holds payloads against schemas, line by line: [schema, payload] comes in, "none" (no schema), "fits" or "unfit" goes out."""
import json
import sys

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

for line in sys.stdin:
    schema, payload = json.loads(line)
    try:
        Draft202012Validator.check_schema(schema)
        verdict = "fits" if Draft202012Validator(schema).is_valid(payload) else "unfit"
    except SchemaError:
        verdict = "none"
    except Exception as error:  # what it does not catch itself: references that lead nowhere, or round and round
        verdict = type(error).__name__
    print(verdict)
