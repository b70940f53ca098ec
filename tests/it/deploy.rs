//! The files of `deploy/`: what they start can be typed, and only the proxy is open.

use std::path::Path;
use std::process::Command;

use clap::Parser as _;
use fedplug::Cli;
use yaml_rust2::{Yaml, YamlLoader};

use crate::support::root;

fn text(name: &str) -> String {
    std::fs::read_to_string(root().join("deploy").join(name)).unwrap()
}

fn documents(name: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn texts(list: &Yaml) -> Vec<&str> {
    list.as_vec().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

/// Whether fedplug takes these arguments.
fn fedplug(arguments: &[&str]) {
    Cli::try_parse_from([&["fedplug"], arguments].concat()).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
}

#[test]
fn only_the_proxy_of_the_compose_file_can_be_reached_and_the_superlink_runs_no_python_of_strangers() {
    let compose = &documents("compose.yaml")[0];
    let services = compose["services"].as_hash().unwrap();
    for (name, service) in services {
        let (name, networks) = (name.as_str().unwrap(), texts(&service["networks"]));
        assert_eq!(name == "proxy", !service["ports"].is_badvalue(), "{name}");
        assert_eq!(name == "proxy", networks.contains(&"outside"), "{name}");
        assert!(networks.contains(&"control"), "{name}");
        for volume in service["volumes"].as_vec().unwrap() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            let known = source.starts_with("./") || !compose["volumes"][source].is_badvalue();
            assert!(known, "{name}: {source}");
        }
    }
    assert_eq!(compose["networks"]["control"]["internal"].as_bool(), Some(true));
    let superlink = &compose["services"]["superlink"];
    let flags = texts(&superlink["command"]);
    for flag in ["--isolation=process", "--superexec-auth-secret-file=/run/secrets/superexec"] {
        assert!(flags.contains(&flag), "{flags:?}");
    }
    assert_eq!(superlink["environment"]["FLWR_TELEMETRY_ENABLED"].as_str(), Some("0"));
    fedplug(&texts(&compose["services"]["server"]["command"]));
    assert!(!compose["secrets"]["superexec"]["file"].is_badvalue());
}

#[test]
fn the_job_of_a_site_mounts_what_it_names_and_writes_only_to_its_state() {
    let all = documents("site-job.yaml");
    let pod = &all[0]["spec"]["template"]["spec"];
    let site = &pod["containers"][0];
    fedplug(&texts(&site["args"]));
    let volumes: Vec<_> =
        pod["volumes"].as_vec().unwrap().iter().map(|volume| volume["name"].as_str().unwrap()).collect();
    let mounts = site["volumeMounts"].as_vec().unwrap();
    assert_eq!(mounts.len(), volumes.len());
    for mount in mounts {
        let name = mount["name"].as_str().unwrap();
        assert!(volumes.contains(&name), "{name}");
        assert_eq!(mount["readOnly"].as_bool() != Some(true), ["state", "tmp"].contains(&name), "{name}");
    }
    assert_eq!(site["securityContext"]["readOnlyRootFilesystem"].as_bool(), Some(true));
    assert_eq!(pod["automountServiceAccountToken"].as_bool(), Some(false));
    let label = &all[0]["spec"]["template"]["metadata"]["labels"]["app"];
    assert_eq!(&all[1]["spec"]["podSelector"]["matchLabels"]["app"], label);
    assert!(all[1]["spec"]["ingress"].is_badvalue());
}

#[test]
fn the_unit_of_a_site_starts_a_command_that_exists() {
    let unit = text("fedplug-site@.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/fedplug ")).unwrap();
    fedplug(&start.split(' ').collect::<Vec<_>>());
    // The exit codes of `fedplug`: the file is wrong, and stopped on request.
    assert!(unit.contains("\nRestartPreventExitStatus=2\n") && unit.contains("\nSuccessExitStatus=130\n"));
    // Where there is systemd, it finds nothing wrong but that this machine has no such program.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fedplug-site@clinic-a.service");
    std::fs::write(&path, unit.replace("/usr/local/bin/fedplug", "/bin/true")).unwrap();
    if let Ok(told) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output() {
        let stderr = String::from_utf8_lossy(&told.stderr);
        let about: Vec<&str> = stderr.lines().filter(|line| line.contains("fedplug-site")).collect();
        assert!(about.is_empty(), "{about:?}");
    }
}

/// The blocks of an nginx configuration: what stands before each `{`, and the directives directly within it.
fn blocks(text: &str) -> Vec<(String, Vec<String>)> {
    let (mut open, mut done) = (vec![(String::new(), Vec::new())], Vec::new());
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        if let Some(name) = line.strip_suffix('{') {
            open.push((name.trim().to_owned(), Vec::new()));
        } else if line == "}" {
            done.extend(open.pop());
        } else {
            assert!(line.ends_with(';'), "{line}");
            open.last_mut().unwrap().1.push(line.trim_end_matches(';').to_owned());
        }
    }
    assert_eq!(open.len(), 1);
    done.extend(open);
    done
}

#[test]
fn the_proxy_passes_one_prefix_and_bounds_bodies() {
    let blocks = blocks(&text("nginx.conf"));
    let of = |name: &str| &blocks.iter().find(|(block, _)| block == name).unwrap().1;
    let passes: Vec<_> =
        blocks.iter().filter(|(_, lines)| lines.iter().any(|line| line.starts_with("proxy_pass"))).collect();
    assert_eq!(passes.len(), 1);
    assert_eq!(passes[0].0, "location /v1/fleet/");
    assert_eq!(of("location /"), &["return 404"]);
    assert!(of("http").contains(&"client_max_body_size 8m".to_owned()));
    assert!(of("server").iter().filter(|line| line.starts_with("listen")).all(|line| line.ends_with(" ssl")));
}

/// `tests/it/proxy.py NGINX`: a request through the real proxy reaches the Fleet API only.
#[test]
#[ignore = "needs nginx: FEDPLUG_NGINX=/usr/sbin/nginx cargo test -p fedplug --test it -- --ignored deploy"]
fn behind_the_real_proxy_control_is_not_there() {
    let nginx = std::env::var("FEDPLUG_NGINX").unwrap_or_else(|_| "nginx".to_owned());
    let script = Path::new("tests/it/proxy.py");
    let told = Command::new("python3").arg(root().join(script)).arg(nginx).current_dir(root()).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}

/// A preempted job: the whole process group gets SIGTERM, and the job goes back into the queue until it is done.
#[test]
#[cfg(unix)]
fn a_slurm_job_resumes_itself() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::process::CommandExt as _;

    use crate::resume::{LINEAR, checkpointed, same, wait};
    use crate::support::{Bench, libraries};

    let bench = Bench::new();
    let rounds = ["--set", "federation.rounds=60", "--set", "federation.checkpoint-every=3"];
    bench.run(&[&[LINEAR, "--name", "whole"], &rounds[..]].concat());
    for (name, script) in [("srun", "exec \"$@\""), ("scontrol", "echo \"$@\" >> \"$QUEUE\"")] {
        let path = bench.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    symlink(libraries().join("fedplug"), bench.path("bin/fedplug")).unwrap();
    let queue = bench.path("queue");
    let job = || {
        let path = format!("{}:{}", bench.path("bin").display(), std::env::var("PATH").unwrap());
        let mut job = Command::new("bash");
        job.arg(root().join("deploy/slurm.sh")).args([LINEAR, "job"]).args(rounds).current_dir(root()).process_group(0);
        job.env("PATH", path).env("QUEUE", &queue).env("FEDPLUG_OUTPUT", bench.path("runs")).env("SLURM_JOB_ID", "7");
        job.stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut first = job();
    wait(&mut first, || checkpointed(&bench, "job").is_some_and(|done| done >= 6));
    let group = format!("-{}", first.id());
    assert!(Command::new("kill").args(["-TERM", "--", &group]).status().unwrap().success());
    assert_eq!(first.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_to_string(&queue).unwrap(), "requeue 7\n");
    // Back in the queue; and once more after it is done.
    for _ in 0..2 {
        assert_eq!(job().wait().unwrap().code(), Some(0));
        same(&bench, "job", "whole");
    }
    assert_eq!(std::fs::read_to_string(&queue).unwrap(), "requeue 7\n");
}
