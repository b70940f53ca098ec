"""The classes that plugins derive from, without the program."""
import dataclasses
import pathlib
import unittest
from enum import Enum
from typing import Annotated, Any, Literal, Optional

import numpy as np

import fedplug
from fedplug import _config


class Mode(Enum):
    FAST = "fast"


@dataclasses.dataclass
class Inner:
    #: How deep.
    depth: int = 1


class Plugin(fedplug.Model):
    @dataclasses.dataclass
    class Config:
        #: The step size,
        #: in some unit.
        learning_rate: Annotated[float, fedplug.Bounds(gt=0, le=1)]
        sizes: tuple[int, ...] = (1, 2)  #: Sizes.
        mode: Mode = Mode.FAST
        word: Annotated[Literal["a", "b"], "A word."] = "a"
        file: Optional[pathlib.Path] = None
        inner: Inner = dataclasses.field(default_factory=Inner)
        any: dict[str, Any] = dataclasses.field(default_factory=dict)


class Configuration(unittest.TestCase):
    def test_a_dataclass_is_a_schema(self):
        found = _config.schema(Plugin)
        self.assertEqual((found["required"], found["additionalProperties"]), (["learning-rate"], False))
        keys = found["properties"]
        self.assertEqual(
            keys["learning-rate"],
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "description": "The step size, in some unit."},
        )
        self.assertEqual(keys["sizes"], {"type": "array", "items": {"type": "integer"}, "description": "Sizes.", "default": [1, 2]})
        self.assertEqual(keys["mode"], {"enum": ["fast"], "default": "fast"})
        self.assertEqual(keys["word"], {"enum": ["a", "b"], "description": "A word.", "default": "a"})
        self.assertEqual(keys["file"], {"anyOf": [{"type": "string", "format": "path"}, {"type": "null"}], "default": None})
        self.assertEqual(keys["inner"]["properties"]["depth"], {"type": "integer", "description": "How deep.", "default": 1})
        self.assertEqual(keys["any"], {"type": "object", "additionalProperties": {}, "default": {}})
        self.assertEqual(_config.schema(fedplug.Model)["properties"], {})

    def test_keys_are_an_object(self):
        made = _config.make(Plugin, {"learning-rate": 1, "sizes": [3], "file": "a/b", "inner": {"depth": 2}})
        self.assertEqual((made.learning_rate, type(made.learning_rate), made.sizes), (1.0, float, (3,)))
        self.assertEqual((made.file, made.inner, made.mode), (pathlib.Path("a/b"), Inner(2), Mode.FAST))

    def test_pydantic_serves_as_well(self):
        try:
            import pydantic
        except ImportError:
            self.skipTest("pydantic is not installed")

        class WithPydantic(fedplug.Filter):
            class Config(pydantic.BaseModel):
                learning_rate: float = pydantic.Field(0.1, gt=0, description="The rate.")
                inner: dict[str, int] = {}

                @pydantic.field_validator("learning_rate")
                @classmethod
                def not_two(cls, value):
                    if value == 2:
                        raise ValueError("two is too much")
                    return value

        key = _config.schema(WithPydantic)["properties"]["learning-rate"]
        self.assertEqual((key["exclusiveMinimum"], key["description"], key["default"]), (0, "The rate.", 0.1))
        self.assertEqual(_config.make(WithPydantic, {"learning-rate": 0.5, "inner": {"a-b": 1}}).inner, {"a-b": 1})
        with self.assertRaises(fedplug.ConfigError) as caught:
            _config.make(WithPydantic, {"learning-rate": 2})
        self.assertEqual((caught.exception.key, str(caught.exception)), ("learning-rate", "value error, two is too much"))

    def test_a_type_that_no_key_can_have_is_named(self):
        class Odd(fedplug.Filter):
            @dataclasses.dataclass
            class Config:
                odd: set = dataclasses.field(default_factory=set)

        with self.assertRaisesRegex(fedplug.ConfigError, "`Config.odd` has a type that no key can have"):
            _config.schema(Odd)


class Data(unittest.TestCase):
    def test_seeds_are_those_of_rust(self):
        self.assertEqual(fedplug.Seed(0).at(0), 0xA706DD2F4D197E6F)
        self.assertEqual(fedplug.Seed(42).of("tm").at(3), 4795672531119795240)

    def test_tables_take_lists_arrays_and_columns_of_pandas(self):
        table = fedplug.Table({"x": [1, 2, None], "t": ["a", None, "c"], "l": [[1], [], [2, 3]], "b": np.array([True, False, True])})
        self.assertEqual((table.rows, list(table)), (3, ["x", "t", "l", "b"]))
        some = table.select([2, 0])
        self.assertEqual((some["t"], some["b"].tolist(), some["l"][0].tolist()), (("c", "a"), [True, True], [2, 3]))
        self.assertTrue(np.isnan(some["x"][0]) and some["x"][1] == 1)
        with self.assertRaisesRegex(fedplug.DataError, "no column `y`"):
            table["y"]
        with self.assertRaisesRegex(fedplug.DataError, "column `b` has 1 rows, but the others have 2"):
            fedplug.Table({"a": [1, 2], "b": [1]})
        with self.assertRaisesRegex(fedplug.DataError, "column `a` holds object, str"):
            fedplug.Table({"a": [object(), "x"]})

    def test_rows_have_classes_by_name_or_by_index(self):
        spec = fedplug.TaskSpec("t", ("x",), "y", ("no", "yes"))
        self.assertEqual(spec.class_indices(fedplug.Table({"y": ["yes", "no"]})).tolist(), [1, 0])
        self.assertEqual(spec.class_indices(fedplug.Table({"y": [1, 0]})).tolist(), [1, 0])
        with self.assertRaisesRegex(fedplug.DataError, "row 2 has none of the classes"):
            spec.class_indices(fedplug.Table({"y": ["no", "maybe"]}))

    def test_a_tensor_that_does_not_fit_is_named(self):
        params = fedplug.Params(w=np.zeros(2, "f4"))
        for other, text in ((np.zeros(3, "f4"), "has shape"), (np.zeros(2, "i8"), "holds i64, not f32")):
            with self.assertRaisesRegex(fedplug.TensorError, f"tensor `w`: {text}"):
                params.matching("w", other)
        with self.assertRaisesRegex(fedplug.TensorError, "tensor `v`: is missing"):
            params.matching("v", np.zeros(2, "f4"))

    def test_logits_become_probabilities(self):
        found = fedplug.softmax(np.array([[0.0, 0.0], [1000.0, -1000.0], [0.0, np.log(3.0)]]))
        np.testing.assert_allclose(found, [[0.5, 0.5], [1, 0], [0.25, 0.75]])


if __name__ == "__main__":
    unittest.main()
