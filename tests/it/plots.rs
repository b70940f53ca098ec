//! Plots of curves and of clients' sizes, and the files beside them.

use std::fs;
use std::path::{Path, PathBuf};

use protobuf::Message as _;
use resvg::tiny_skia::Pixmap;
use resvg::usvg::roxmltree::Document;
use tensorboard_proto::event::Event;
use tensorboard_rs::record_writer::RecordWriter;

use crate::support::{Bench, Told, files, python, root};

const LINEAR: &str = "configs/linear.toml";

/// Writes an event file as any other program does.
fn write_events(folder: &Path, name: &str, tag: &str, points: impl IntoIterator<Item = (i64, f32)>) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join(format!("events.out.tfevents.{name}"));
    let mut writer = RecordWriter::new(fs::File::create(&path).unwrap());
    for (step, value) in points {
        let mut event = Event::new();
        event.set_wall_time(1000.0 + step as f64);
        event.set_step(step);
        event.set_summary(tensorboard_rs::summary::scalar(tag, value));
        writer.write(&event.write_to_bytes().unwrap()).unwrap();
    }
    path
}

/// `fedplug plot ARGUMENTS` into the bench's `figures`.
fn plot(bench: &Bench, arguments: &[&str]) -> Told {
    let output = bench.path("figures");
    bench.fedplug(&[&["plot", "--output", output.to_str().unwrap()], arguments].concat())
}

/// Plots and asserts that it is done; the names of the files that stdout tells.
fn plotted(bench: &Bench, arguments: &[&str]) -> Vec<String> {
    let told = plot(bench, arguments);
    assert_eq!((told.code, told.stderr.as_str()), (0, ""));
    let name = |line: &str| {
        assert!(Path::new(line).is_file(), "{line}");
        Path::new(line).file_name().unwrap().to_str().unwrap().to_owned()
    };
    told.stdout.lines().map(name).collect()
}

/// The texts of a picture, and how many paths it has.
fn read_svg(path: &Path) -> (Vec<String>, usize) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.len() < 200_000, "{} bytes", text.len());
    let document = Document::parse(&text).unwrap();
    let of = |name: &'static str| document.descendants().filter(move |node| node.has_tag_name(name));
    (of("text").map(|node| node.text().unwrap().to_owned()).collect(), of("path").count())
}

fn size(path: &Path) -> (u32, u32) {
    let pixels = Pixmap::load_png(path).unwrap();
    let colours: std::collections::BTreeSet<_> =
        pixels.pixels().iter().map(|p| (p.red(), p.green(), p.blue())).collect();
    assert!(colours.len() > 10, "{} shows nothing", path.display());
    (pixels.width(), pixels.height())
}

#[test]
fn two_runs_stand_in_one_picture_a_client() {
    let bench = Bench::new();
    for name in ["local", "federated"] {
        bench.run(&[LINEAR, "--name", name, "--set", "federation.rounds=4"]);
    }
    let runs = bench.path("runs");
    let names = plotted(&bench, &[runs.to_str().unwrap(), "--tag", "RMSE/local_test"]);
    insta::assert_snapshot!(names.join("\n"));
    let (texts, _) = read_svg(&bench.path("figures/tm.svg"));
    for wanted in ["tm", "RMSE", "optimiser steps", "local", "federated"] {
        assert!(texts.iter().any(|text| text == wanted), "no {wanted} in {texts:?}");
    }
    // The server has the means over all tasks of the score alone.
    let score = plotted(&bench, &[runs.to_str().unwrap(), "--tag", "Score/local_test", "--force"]);
    assert_eq!(score, ["server.svg", "server.png"]);
    assert!(read_svg(&bench.path("figures/server.svg")).0.iter().any(|text| text == "round"));
    // A CSS pixel is two of the file's.
    assert_eq!(size(&bench.path("figures/tm.png")), (1280, 840));
}

#[test]
fn a_run_can_be_named_sized_and_shown_with_all_clients_together() {
    let bench = Bench::new();
    bench.run(&[LINEAR, "--set", "federation.rounds=2"]);
    let run = bench.path("runs/linear");
    let run = run.to_str().unwrap();
    let arguments = [run, "--tag", "Pearson/local_test", "--together", "--label", "Linear <α>", "--size", "900x500"];
    assert_eq!(plotted(&bench, &[&arguments[..], &["--title", "Figure 1"]].concat()), ["together.svg", "together.png"]);
    assert_eq!(size(&bench.path("figures/together.png")), (1800, 1000));
    let (texts, _) = read_svg(&bench.path("figures/together.svg"));
    for wanted in ["Figure 1", "Linear <α>", "binding", "tm", "Pearson correlation"] {
        assert!(texts.iter().any(|text| text == wanted), "no {wanted} in {texts:?}");
    }
    plotted(&bench, &[&arguments[..], &["--x", "time", "--force"]].concat());
    assert!(read_svg(&bench.path("figures/together.svg")).0.iter().any(|text| text == "time (s)"));
}

#[test]
fn event_files_of_other_programs_are_read_where_they_lie() {
    let bench = Bench::new();
    for experiment in ["fedavg", "local"] {
        for site in ["site-1", "site-2", "site-10"] {
            // As NVFlare's server writes them, and as a client's own script does.
            let inner = if experiment == "fedavg" { "server/simulate_job/tb_events" } else { "" };
            let folder = bench.path(format!("nvflare/{experiment}/{inner}/{site}"));
            write_events(&folder, "1.host", "train_loss", (0..100).map(|step| (step, 1.0 / (step + 1) as f32)));
        }
    }
    let names = plotted(&bench, &[bench.path("nvflare").to_str().unwrap(), "--tag", "train_loss"]);
    assert_eq!(
        names,
        ["site-1", "site-2", "site-10"].map(|site| [format!("{site}.svg"), format!("{site}.png")]).concat()
    );
    let (texts, _) = read_svg(&bench.path("figures/site-2.svg"));
    for wanted in ["train_loss", "step", "fedavg", "local"] {
        assert!(texts.iter().any(|text| text == wanted), "no {wanted} in {texts:?}");
    }
}

#[test]
fn a_job_of_nvflare_is_one_run_with_its_clients() {
    let bench = Bench::new();
    let Some(mut python) = python() else { return };
    let jobs = bench.path("multitask");
    let written = python.arg(root().join("tests/it/write_events.py")).arg(&jobs).output().unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let legend = |client: &str| {
        let (texts, _) = read_svg(&bench.path(format!("figures/{client}.svg")));
        let named = |text: &String| ["local", "fedavg", "run_"].iter().any(|name| text.starts_with(name));
        texts.into_iter().filter(named).collect::<Vec<_>>()
    };
    let pictures = |clients: &[&str]| {
        let files = |client: &&str| [format!("{client}.svg"), format!("{client}.png")];
        clients.iter().flat_map(files).collect::<Vec<_>>()
    };
    let clients = ["aggregation", "binding", "tm"];
    let jobs = jobs.to_str().unwrap();
    assert_eq!(plotted(&bench, &[jobs, "--tag", "RMSE/local_test"]), pictures(&clients));
    clients.iter().for_each(|client| assert_eq!(legend(client), ["fedavg", "local"], "{client}"));
    // What the server keeps belongs to the same runs.
    assert_eq!(plotted(&bench, &[jobs, "--tag", "Accuracy", "--force"]), pictures(&["tm"]));
    assert_eq!(legend("tm"), ["fedavg", "local"]);
    // Two clients' folders, of either job, are runs of the jobs' names.
    let tm = ["local/tm", "fedavg/tm"].map(|folder| format!("{jobs}/{folder}"));
    let arguments = [tm[0].as_str(), tm[1].as_str(), "--tag", "RMSE/local_test", "--force"];
    assert_eq!(plotted(&bench, &arguments), pictures(&["tm"]));
    assert_eq!(legend("tm"), ["local", "fedavg"]);
    // A client that was started twice has two runs, which no legend mixes.
    let (first, again) = ("local/tm/run_Nov26_10-00-02", "local/tm/run_Nov26_11-00-00");
    fs::rename(bench.path("multitask").join("fedavg/tm/run_Nov26_10-01-02"), bench.path("multitask").join(again))
        .unwrap();
    plotted(&bench, &[&format!("{jobs}/local"), "--tag", "RMSE/local_test", "--client", "tm", "--force"]);
    let (texts, _) = read_svg(&bench.path("figures/tm.svg"));
    for folder in [first, again] {
        let name = folder.rsplit_once('/').unwrap().1;
        assert!(texts.iter().any(|text| text == name), "no {name} in {texts:?}");
    }
}

#[test]
fn a_long_run_makes_a_small_file_and_a_gap_stays_a_gap() {
    let bench = Bench::new();
    let noisy = (0..30_000_i64).map(|step| (step, (step * 7919 % 1000) as f32));
    write_events(&bench.path("long/tm"), "1", "Loss/train", noisy);
    plotted(&bench, &[bench.path("long").to_str().unwrap(), "--tag", "Loss/train"]);
    read_svg(&bench.path("figures/tm.svg"));

    let gap = |step| (step, if (10..20).contains(&step) { f32::NAN } else { step as f32 * 1000.0 });
    write_events(&bench.path("gap/tm"), "1", "Loss/train", (0..30).map(gap));
    plotted(&bench, &[bench.path("gap").to_str().unwrap(), "--tag", "Loss/train", "--force", "--window", "1"]);
    let whole = |step| (step, step as f32 * 1000.0);
    write_events(&bench.path("whole/tm"), "1", "Loss/train", (0..30).map(whole));
    let with_gap = read_svg(&bench.path("figures/tm.svg")).1;
    plotted(&bench, &[bench.path("whole").to_str().unwrap(), "--tag", "Loss/train", "--force", "--window", "1"]);
    assert_eq!(with_gap, read_svg(&bench.path("figures/tm.svg")).1 + 1, "one curve in two pieces");
}

#[test]
fn a_resumed_runs_later_file_counts_and_a_cut_record_is_no_fault() {
    let bench = Bench::new();
    let folder = bench.path("run/tm");
    write_events(&folder, "1", "x", [(0, 1.0), (1, 2.0), (2, 1e9)]);
    let last = write_events(&folder, "2", "x", [(2, 3.0), (3, 4.0), (4, 1e9)]);
    let bytes = fs::read(&last).unwrap();
    fs::write(&last, &bytes[..bytes.len() - 5]).unwrap();
    plotted(&bench, &[bench.path("run").to_str().unwrap(), "--tag", "x"]);
    let (texts, _) = read_svg(&bench.path("figures/tm.svg"));
    assert!(!texts.iter().any(|text| text.contains("e8") || text.contains("e9")), "{texts:?}");
    assert!(texts.iter().any(|text| text == "3"), "{texts:?}");
}

#[test]
fn damage_is_told_with_its_place_and_the_rest_is_drawn() {
    let bench = Bench::new();
    let path = write_events(&bench.path("run/tm"), "1", "x", (1..=20).map(|step| (step, 1.0)));
    let mut bytes = fs::read(&path).unwrap();
    let record = bytes.len() / 20;
    bytes[3 * record + 14] ^= 0xff; // in the data of the fourth
    bytes[15 * record + 1] ^= 0xff; // in the length of the sixteenth
    fs::write(&path, bytes).unwrap();
    let told = plot(&bench, &[bench.path("run").to_str().unwrap(), "--tag", "x"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    insta::assert_snapshot!(told.stderr);
}

#[test]
fn what_cannot_be_plotted_is_an_error() {
    let bench = Bench::new();
    let fails = |arguments: &[&str]| {
        let told = plot(&bench, arguments);
        assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{}", told.stderr);
        told.stderr
    };
    write_events(&bench.path("a/tm"), "1", "tm/RMSE/local_test", [(0, 1.0)]);
    write_events(&bench.path("a/tm"), "2", "tm/Loss/train", [(0, 1.0)]);
    write_events(&bench.path("b/tm"), "1", "Loss/train", [(0, 1.0)]);
    let [a, b, none] = ["a", "b", "none"].map(|name| bench.path(name).display().to_string());
    insta::assert_snapshot!("no such tag", fails(&[&a, &b, "--tag", "RMSE/local_tset"]));
    fs::create_dir(bench.path("empty")).unwrap();
    let empty = bench.path("empty").display().to_string();
    insta::assert_snapshot!("no event files", fails(&[&a, &none, &empty, "--tag", "x"]));
    insta::assert_snapshot!("too few labels", fails(&[&a, &b, "--tag", "Loss/train", "--label", "only one"]));
    insta::assert_snapshot!("not a size", fails(&[&a, "--tag", "Loss/train", "--size", "640"]));
    plotted(&bench, &[&a, "--tag", "Loss/train"]);
    insta::assert_snapshot!("a picture is there", fails(&[&a, "--tag", "Loss/train"]));
    plotted(&bench, &[&a, "--tag", "Loss/train", "--force"]);
    let told = plot(&bench, &[&a, &b, "--tag", "RMSE/local_test", "--force"]);
    insta::assert_snapshot!("one run lacks the tag", told.stderr);
}

#[test]
fn prepared_data_come_with_pictures_of_the_clients_sizes() {
    let bench = Bench::new();
    let output = bench.path("prepared");
    let shown = output.to_str().unwrap();
    let arguments = ["prepare", LINEAR, "--set", "dataset.clients={count=6,alpha=1.0}", "--output", shown];
    let told = bench.fedplug(&arguments);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let mut named: Vec<PathBuf> = told.stdout.lines().map(PathBuf::from).collect();
    named.sort();
    assert_eq!(named, files(&output), "stdout names all files and no others");
    for picture in ["client_sizes", "binding/client_sizes"] {
        assert_eq!(size(&output.join(picture).with_extension("png")), (1280, 840));
        let (texts, _) = read_svg(&output.join(picture).with_extension("svg"));
        assert!(["client", "training rows", "site-1", "site-6"].iter().all(|wanted| texts.iter().any(|t| t == wanted)));
    }
    let manifest: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(output.join("prepared.json")).unwrap()).unwrap();
    assert_eq!(manifest["seed"], 42);
    assert_eq!(manifest["files"].as_array().unwrap().len(), named.len() - 1);

    let refused = bench.fedplug(&arguments);
    assert_eq!(refused.code, 2);
    insta::assert_snapshot!("prepared already", refused.stderr);
    let again = bench.fedplug(&[&arguments[..], &["--force"]].concat());
    assert_eq!((again.code, again.stdout), (0, told.stdout));
}

#[test]
fn what_cannot_be_prepared_is_an_error() {
    let bench = Bench::new();
    let fails = |arguments: &[&str]| {
        let told = bench.fedplug(&[&["prepare", LINEAR], arguments].concat());
        assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{}", told.stderr);
        told.stderr
    };
    bench.write("precious/thesis.txt", "years of work");
    let [precious, new] = ["precious", "new"].map(|name| bench.path(name).display().to_string());
    insta::assert_snapshot!("other files", fails(&["--output", &precious, "--force"]));
    assert!(bench.path("precious/thesis.txt").exists());
    insta::assert_snapshot!("wrong table", fails(&["--output", &new, "--set", "dataset.task=[\"tm\"]"]));
    insta::assert_snapshot!("no data", fails(&["--output", &new, "--set", "dataset.root=nowhere"]));
    assert!(!bench.path("new").exists());
}
