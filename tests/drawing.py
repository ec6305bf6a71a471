"""What a published schema allows, drawn for Hypothesis."""

from hypothesis import strategies as st

SHA256 = "^[0-9a-f]{64}$"
LONGEST_TEXT = 20


def values(schema, root):
    """Return what draws values that a schema allows."""
    if "$ref" in schema:
        return values(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema or "oneOf" in schema:
        return st.one_of([values(branch, root) for branch in schema.get("anyOf") or schema["oneOf"]])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    return {
        "null": st.none,
        "boolean": st.booleans,
        "integer": lambda: st.integers(schema.get("minimum"), schema.get("maximum")),
        "number": lambda: numbers(schema),
        "string": lambda: texts(schema),
        "array": lambda: st.lists(values(schema["items"], root), max_size=3),
        "object": lambda: objects(schema, root),
    }[schema["type"]]()


def numbers(schema):
    """Return what draws numbers within bounds, whole ones among them."""
    low, high = (schema.get(name, schema.get(f"exclusive{name.title()}")) for name in ("minimum", "maximum"))
    options = {"exclude_min": "exclusiveMinimum" in schema, "exclude_max": "exclusiveMaximum" in schema}
    return st.floats(low, high, allow_nan=False, allow_infinity=False, **options)


def texts(schema):
    """Return what draws texts, of a pattern if there is one; as long as they may be only seldom matters."""
    if schema.get("pattern") == SHA256:
        # A hundred times as fast as drawing each character.
        return st.integers(0, 2**256 - 1).map("{:064x}".format)
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True)
    longest = min(schema.get("maxLength", LONGEST_TEXT), LONGEST_TEXT)
    return st.text(st.characters(codec="utf-8"), min_size=schema.get("minLength", 0), max_size=longest)


def objects(schema, root):
    """Return what draws objects, with any of the fields that may be left out."""
    if isinstance(schema.get("additionalProperties"), dict):
        return st.dictionaries(st.text(max_size=5), values(schema["additionalProperties"], root), max_size=3)
    fields = {name: values(rules, root) for name, rules in schema["properties"].items()}
    required = schema.get("required", [])
    optional = {name: drawn for name, drawn in fields.items() if name not in required}
    return st.fixed_dictionaries({name: fields[name] for name in required}, optional=optional)
