"""The package beside the program that FEDPLUG_PROGRAM names. The current directory is the repository's root."""
import contextlib
import io
import json
import os
import pathlib
import signal
import sys
import tempfile
import threading
import tomllib
import unittest
import unittest.mock

import fedplug
from fedplug import _program, _toml

LINEAR = "configs/linear.toml"


class Toml(unittest.TestCase):
    def test_what_is_written_is_read_back(self):
        document = {
            "name": "a \"quoted\" \\ name\n\x7f",
            "seed": 42,
            "federation": {"rounds": 3, "devices": ["cpu"], "early-stopping": {"patience": 2, "least": 0.1}},
            "dataset": {"tasks": [], "empty": {}, "standardise": True, "a key. with dots": -1e-30},
            "filter": [{"at": ["client-input"]}, {"at": "server-output"}],
        }
        self.assertEqual(tomllib.loads(_toml.document(document)), document)

    def test_paths_and_numbers_of_other_libraries_are_values(self):
        class Number:
            def item(self):
                return 2.5

        self.assertEqual(_toml.value(pathlib.PurePosixPath("a/b")), '"a/b"')
        self.assertEqual(_toml.value(Number()), "2.5")
        with self.assertRaisesRegex(TypeError, "None"):
            _toml.value({"a": None})

    def test_tables_are_entered_and_lists_are_not(self):
        found = dict(_toml.leaves({"federation": {"rounds": 2}, "model.hidden-size": 4, "dataset": {"tasks": ["a"]}}))
        self.assertEqual(found, {"federation.rounds": "2", "model.hidden-size": "4", "dataset.tasks": '["a"]'})


class Program(unittest.TestCase):
    def test_libraries_of_torch_elsewhere_are_named(self):
        with tempfile.TemporaryDirectory() as folder:
            torch = pathlib.Path(folder, "torch")
            (torch / "lib").mkdir(parents=True)
            (torch / "__init__.py").touch()
            sys.path.insert(0, folder)
            try:
                self.assertNotIn("FEDPLUG_PRELOAD", _program.environment())
                for name in _program.LIBTORCH:
                    (torch / "lib" / name).touch()
                listed = _program.environment()["FEDPLUG_PRELOAD"].split(os.pathsep)
            finally:
                sys.path.remove(folder)
            self.assertEqual([pathlib.Path(path).name for path in listed], list(_program.LIBTORCH))
            self.assertNotIn("torch", sys.modules)

    def test_a_script_is_not_the_program(self):
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder, "fedplug")
            script.write_text("#!/bin/sh\n")
            script.chmod(0o755)
            before = dict(os.environ)
            os.environ["PATH"] = folder
            del os.environ["FEDPLUG_PROGRAM"]
            try:
                with self.assertRaisesRegex(FileNotFoundError, "no program"):
                    fedplug.program()
            finally:
                os.environ.update(before)


class Runs(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.output = pathlib.Path(self.folder.name)

    def run_linear(self, experiment=LINEAR, **more):
        return fedplug.run(experiment, output=self.output, progress=False, federation={"rounds": 3}, **more)

    def test_a_run_and_its_tables(self):
        run = self.run_linear(name="mine", seed=7)
        self.assertTrue(run.finished)
        self.assertEqual((run.name, run.path), ("mine", self.output / "mine"))
        self.assertEqual((run.experiment["seed"], run.summary["rounds"]), (7, 3))
        scalars = list(run.scalars())
        self.assertEqual(len(run.metrics), len(scalars))
        one = run.metrics.query("client == 'tm' and metric == 'RMSE' and split == 'local_test'")
        self.assertEqual(list(one["round"]), [0, 1, 2])
        results = run.results.set_index(["client", "split", "metric"])
        self.assertEqual(results.loc[("tm", "local_test", "RMSE"), "last"], one["value"].iloc[-1])
        test = run.predictions.query("client == 'tm' and split == 'test'")
        rmse = ((test["measured"] - test["own_predicted"]) ** 2).mean() ** 0.5
        self.assertAlmostEqual(rmse, one["value"].iloc[-1], places=5)
        self.assertIn("<table", run._repr_html_())
        for which in ("best", "last"):
            self.assertIn("trunk.weight", run.parameters(which=which))
        self.assertIn("tm", run.clients)
        with self.assertRaisesRegex(FileNotFoundError, "export"):
            run.export()
        # Read again, it is the same.
        self.assertTrue(fedplug.load(run.path).metrics.equals(run.metrics))

    def test_an_experiment_as_a_dict_gives_what_its_file_gives(self):
        with open(LINEAR, "rb") as file:
            content = tomllib.load(file)
        # Paths in a dict are relative to the current directory, or to the folder that it names.
        of_file = self.run_linear(name="file").model().read_bytes()
        with self.assertRaisesRegex(fedplug.ConfigError, "sample: no such folder"):
            self.run_linear(content, name="here")
        named = self.run_linear({**content, "folder": "configs"}, name="named")
        content["dataset"]["root"] = "configs/sample"
        here = self.run_linear(content, name="here")
        self.assertEqual((named.model().read_bytes(), here.model().read_bytes()), (of_file, of_file))
        self.assertEqual(here.experiment["folder"], os.getcwd())

    def test_a_copy_in_mlflow_has_curves_keys_and_files(self):
        run = self.run_linear()
        environment = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        with unittest.mock.patch.dict(os.environ, environment):
            import mlflow

            mlflow.set_tracking_uri(f"file:{self.output}/mlruns")
            id = run.to_mlflow("trial")
            client = mlflow.MlflowClient()
            copy = client.get_run(id)
            self.assertEqual((copy.info.status, copy.info.run_name), ("FINISHED", "linear"))
            self.assertEqual(copy.data.params["federation.rounds"], str(run.experiment["federation"]["rounds"]))
            self.assertEqual(copy.data.params["filter.0.plugin"], "exclude-params")
            wanted = [(scalar["step"], scalar["value"]) for scalar in run.scalars() if (scalar["client"], scalar["tag"]) == ("tm", "RMSE/local_test")]
            history = client.get_metric_history(id, "tm/RMSE/local_test")
            self.assertEqual([(metric.step, metric.value) for metric in history], wanted)
            scalars = {f"{scalar['client']}/{scalar['tag']}" for scalar in run.scalars() if scalar["value"] is not None}
            self.assertEqual(set(copy.data.metrics), scalars)
            best = client.download_artifacts(id, "best/model.safetensors")
            self.assertEqual(pathlib.Path(best).read_bytes(), run.model().read_bytes())
            # Again in the same experiment, and without the models.
            again = run.to_mlflow("trial", models=False)
            self.assertEqual(client.get_run(again).info.experiment_id, copy.info.experiment_id)
            self.assertNotIn("best", [file.path for file in client.list_artifacts(again)])

    def test_a_copy_in_weights_and_biases_has_what_was_logged(self):
        # The package is large and logs in: what it would be told is what matters.
        run, wandb = self.run_linear(), unittest.mock.MagicMock()
        with unittest.mock.patch.dict(sys.modules, {"wandb": wandb}):
            run.to_wandb(project="trial", mode="offline")
        wandb.init.assert_called_once_with(name="linear", config=run.experiment, project="trial", mode="offline")
        copy = wandb.init.return_value.__enter__.return_value
        steps = [call.kwargs["step"] for call in copy.log.call_args_list]
        self.assertEqual(steps, sorted(set(steps)))
        logged = sum(len(call.args[0]) for call in copy.log.call_args_list)
        self.assertEqual(logged, sum(scalar["value"] is not None for scalar in run.scalars()))

    def test_errors_have_the_programs_words_and_codes(self):
        with self.assertRaisesRegex(fedplug.ConfigError, "learning-rat.*\n(.*\n)*.*learning-rate") as caught:
            self.run_linear(model={"learning-rat": 1})
        self.assertEqual(caught.exception.code, 2)
        self.run_linear()
        with self.assertRaisesRegex(fedplug.FedplugError, "--force"):
            self.run_linear()
        self.run_linear(force=True)
        with self.assertRaisesRegex(FileNotFoundError, "no fedplug run"):
            fedplug.load(self.output / "nothing")

    def test_an_interrupt_leaves_a_run_that_resumes(self):
        # A shell's job in the background ignores interrupts, and so would this test.
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        lines = io.StringIO()
        timer = threading.Timer(0, lambda: None)

        class Watch(io.StringIO):
            def write(self, text):
                nonlocal timer
                if text.startswith("round 1/") and not timer.is_alive():
                    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
                    timer.start()
                return lines.write(text)

        endless = {"rounds": 100_000, "checkpoint-after": 100_000}
        with self.assertRaisesRegex(KeyboardInterrupt, "--resume"), contextlib.redirect_stderr(Watch()):
            fedplug.run(LINEAR, output=self.output, federation=endless, name="long")
        run = fedplug.load(self.output / "long")
        self.assertFalse(run.finished)
        done = max(scalar["round"] for scalar in run.scalars()) + 1
        run = fedplug.run(LINEAR, output=self.output, resume=True, progress=False, federation={"rounds": done + 2}, name="long")
        self.assertEqual(run.summary["rounds"], done + 2)


if __name__ == "__main__":
    unittest.main()
