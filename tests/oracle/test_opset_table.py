"""The upgrade table of raise-opset against the operator definitions of the newest onnx package."""
import pathlib
import re

from onnx import defs, helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
OLDEST, NEWEST = 7, 21

# Changes of meaning that the signature does not show or shows as an addition, found by reading the
# descriptions: the table must have a step for them.
SILENT = {("AveragePool", 19), ("GroupNormalization", 21), ("RoiAlign", 16), ("Split", 18)}
# Changes of the signature that mean nothing for a node of the old form.
HARMLESS = {
    ("Constant", 11),  # the value became one of several kinds
    ("Gemm", 11), ("OptionalHasElement", 18),  # an input became optional
    ("Upsample", 9),  # the step at 10 takes both forms
}


def table():
    text = (ROOT / "passes/cleanup/opset_table.cpp").read_text()
    names, steps = text.split("kSteps[]")
    operators = set(re.findall(r'"(\w+)"', names.split("kOperators[]")[1]))
    return operators, {(op, int(v)) for op, v in re.findall(r'\{"(\w+)", (\d+),', steps)}


def history():
    schemas = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= NEWEST:
            schemas.setdefault(schema.name, {})[schema.since_version] = schema
    return schemas


def default(attribute):
    value = attribute.default_value
    return helper.get_attribute_value(value) if value.name else None


def breaks(old, new):
    """Whether some node of the old form is another or none in the new one, by the signatures."""
    if new.deprecated:
        return True
    for name, attribute in old.attributes.items():
        if name not in new.attributes or default(attribute) != default(new.attributes[name]):
            return True
    if any(a.required and n not in old.attributes for n, a in new.attributes.items()):
        return True
    slots = [(i.name, i.option) for i in old.inputs]
    return [(i.name, i.option) for i in new.inputs][: len(slots)] != slots


def changes():
    for name, versions in sorted(history().items()):
        ordered = sorted(versions)
        for old, new in zip(ordered, ordered[1:]):
            if new > OLDEST:
                yield name, new, breaks(versions[old], versions[new])


def test_every_operator_is_in_the_table():
    assert set(history()) - table()[0] == set()


def test_operators_of_the_table_exist():
    assert table()[0] - set(history()) == {"ImageScaler"}  # known to ONNX Runtime alone


def test_every_breaking_change_has_a_step():
    needed = {(name, version) for name, version, broken in changes() if broken}
    assert (needed - HARMLESS | SILENT) - table()[1] == set()


def test_every_step_is_a_change():
    assert table()[1] - {(name, version) for name, version, _ in changes()} == {("ImageScaler", 10)}
