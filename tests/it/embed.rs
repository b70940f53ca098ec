//! `fedplug embed`: vectors for other programs.

use crate::support::{Bench, Told, has_libtorch, python, skip};

const ROWS: &str = "id,heavy,light\n1,EVQLVESGG,DIQMTQ\n2,QVQLQQSGAELV,EIVLTQ\n3,EVQLVESGG,DIQMTQ\n";

/// Loads both files, compares them, and prints the shape, whether rows 0 and 2 and rows 0 and 1 are equal, and the norm of
/// the first row.
const LOAD: &str = r#"
import sys
import numpy
from safetensors.numpy import load_file
a, b = numpy.load(sys.argv[1]), load_file(sys.argv[2])["vectors"]
assert a.dtype == b.dtype == numpy.float32 and (a == b).all()
print(a.shape, (a[0] == a[2]).all(), (a[0] == a[1]).all(), numpy.linalg.norm(a[0]) > 0.1)
"#;

fn embed(bench: &Bench, run: &str, input: &str, output: &str, more: &[&str]) -> Told {
    let (run, output) = (bench.path("runs").join(run), bench.path(output));
    let paths = ["embed", run.to_str().unwrap(), input, "--output", output.to_str().unwrap()];
    bench.fedplug(&[&paths[..], more].concat())
}

#[test]
fn vectors_are_read_by_numpy_and_safetensors() {
    if !has_libtorch() {
        return skip("libtorch is not installed");
    }
    let bench = Bench::new();
    let trunk = "model.pretrained={ hidden-size = 16, layers = 1, heads = 2, intermediate-size = 16 }";
    // Private heads, which the vectors do not need.
    bench.run(&["configs/quickstart.toml", "--name", "small", "--set", trunk, "--set", "federation.rounds=1"]);
    let rows = bench.write("rows.csv", ROWS).display().to_string();
    for file in ["a.npy", "a.safetensors"] {
        let told = embed(&bench, "small", &rows, file, &[]);
        assert_eq!(told.code, 0, "{}", told.stderr);
        assert!(told.stderr.contains("3 vectors of 16 numbers"), "{}", told.stderr);
    }
    let again = embed(&bench, "small", &rows, "a.npy", &[]);
    assert!(again.code == 2 && again.stderr.contains("already exists"), "{}", again.stderr);
    let empty = bench.write("empty.csv", "id,heavy,light\n").display().to_string();
    assert_eq!(embed(&bench, "small", &empty, "empty.npy", &[]).code, 0);
    let Some(mut python) = python() else { return };
    let files = [bench.path("a.npy"), bench.path("a.safetensors")];
    let output = python.args(["-c", LOAD]).args(files).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(text, "(3, 16) True False True\n");
    // A vector does not depend on the rows beside it, up to rounding; with a model of its own a client has others.
    let own = embed(&bench, "small", &rows, "own.npy", &["--client", "tm"]);
    assert_eq!(own.code, 0, "{}", own.stderr);
    assert_ne!(std::fs::read(bench.path("own.npy")).unwrap(), std::fs::read(bench.path("a.npy")).unwrap());
}

#[test]
fn vectors_are_those_that_heads_read() {
    if !has_libtorch() {
        return skip("libtorch is not installed");
    }
    let bench = Bench::new();
    let rows = bench.write("rows.csv", ROWS).display().to_string();
    for (pooling, size) in [("bos", Some(16)), ("chains", Some(32)), ("attention", None)] {
        let set = [
            "model.pretrained={ hidden-size = 16, layers = 1, heads = 2, intermediate-size = 16 }".to_owned(),
            format!("model.pooling={pooling}"),
            "federation.rounds=1".to_owned(),
        ];
        let arguments = ["configs/quickstart.toml", "--name", pooling].into_iter();
        bench.run(&arguments.chain(set.iter().flat_map(|set| ["--set", set])).collect::<Vec<_>>());
        let told = embed(&bench, pooling, &rows, &format!("{pooling}.npy"), &[]);
        assert_eq!(told.code, i32::from(size.is_none()), "{}", told.stderr);
        let wanted = match size {
            Some(size) => format!("3 vectors of {size} numbers"),
            None => "`pooling = \"attention\"` gives each head its own vector of a sequence".to_owned(),
        };
        assert!(told.stderr.contains(&wanted), "{}", told.stderr);
    }
}

#[test]
fn what_cannot_be_embedded_is_an_error() {
    let bench = Bench::new();
    bench.run(&["configs/linear.toml", "--set", "federation.rounds=1"]);
    let rows = bench.write("rows.csv", ROWS).display().to_string();
    let told = embed(&bench, "linear", &rows, "a.npy", &[]);
    assert_eq!(told.code, 1);
    insta::assert_snapshot!("a model without vectors", told.stderr);
    assert!(!bench.path("a.npy").exists());
    let told = embed(&bench, "linear", &rows, "a.csv", &[]);
    assert_eq!(told.code, 2);
    assert!(told.stderr.contains("the file's format is not known"), "{}", told.stderr);
}
