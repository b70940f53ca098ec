//! Every command, file and link of the documentation: README.md, plugins/README.md and the book in `docs/src`.
//!
//! A code block is `sh`, `toml`, `rust` or `text`, and nothing else. Each line of `sh` is an existing command, with
//! arguments that its program accepts; in `text`, `$ ` starts such a line, and the rest is output. `toml` is a whole
//! experiment, which `fedplug check` accepts, or, without a table `[federation]`, the file of a site. `rust` is built by `authoring`, or is a part of what `plugin new` writes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};
use fedplug::Cli;
use fedplug::internals::{Draft, check_site_file};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

use crate::support::{Bench, files, has_libtorch, root, skip};

/// The pages, by their paths in the repository.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = files(&root().join("docs/src"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| path.strip_prefix(root()).unwrap().to_owned())
        .chain(["README.md".into(), "SECURITY.md".into(), "plugins/README.md".into()])
        .collect();
    pages.sort();
    pages
}

fn text(page: &Path) -> String {
    std::fs::read_to_string(root().join(page)).unwrap()
}

/// A page's blocks of code, with what follows the backticks.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open = false;
    for event in Parser::new(page) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                blocks.push((language.to_string(), String::new()));
                open = true;
            }
            Event::End(TagEnd::CodeBlock) => open = false,
            Event::Text(code) if open => blocks.last_mut().unwrap().1.push_str(&code),
            _ => {}
        }
    }
    blocks
}

/// Why a command line could not be typed as it stands.
fn refusal(line: &str) -> Option<String> {
    let Some(mut words) = shlex::split(line) else { return Some("is no line of a shell".to_owned()) };
    // What follows goes to a file.
    words.truncate(words.iter().position(|word| word == ">").unwrap_or(words.len()));
    let known = |known: bool, what: &str| (!known).then(|| format!("there is no {what}"));
    match words.first().map(String::as_str) {
        None | Some("cd") => None,
        Some("fedplug" | "target/release/fedplug") => fedplug(&words),
        Some("make") => {
            let makefile = text(Path::new("Makefile"));
            words[1..].iter().find_map(|word| match word.split_once('=') {
                Some((variable, _)) => {
                    known(makefile.contains(&format!("\n{variable} ?=")), &format!("variable {word}"))
                }
                None => known(
                    makefile.lines().any(|line| targets(line).any(|target| target == word)),
                    &format!("target {word}"),
                ),
            })
        }
        Some("cargo") => {
            let lock = text(Path::new("Cargo.lock"));
            words.windows(2).filter(|pair| pair[0] == "-p").find_map(|pair| {
                known(lock.contains(&format!("\nname = \"{}\"\n", pair[1])), &format!("package {}", pair[1]))
            })
        }
        Some(other) => Some(format!("`{other}` is a program that no test knows")),
    }
}

/// The targets that a line of the Makefile is about.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let names = line.split_once(':').filter(|(_, after)| !after.starts_with('=') && !line.starts_with(['\t', '#']));
    names.map_or("", |(names, _)| names).split_whitespace()
}

/// Whether fedplug takes these words, and whether the experiment that they name is there and has no wrong key of the
/// host's with what the command line sets.
fn fedplug(words: &[String]) -> Option<String> {
    if let Err(error) = Cli::try_parse_from(words) {
        return Some(error.to_string());
    }
    let experiment = words.iter().find(|word| word.starts_with("configs/"))?;
    let overrides: Vec<String> =
        words.windows(2).filter(|pair| pair[0] == "--set").map(|pair| pair[1].clone()).collect();
    match Draft::read(&root().join(experiment), &overrides) {
        Err(failure) => Some(failure.to_text(false)),
        Ok(draft) => draft.whole().err().map(|failure| failure.to_text(false)),
    }
}

/// The commands of a block: its lines, put together where a backslash ends one.
fn commands(language: &str, code: &str) -> Vec<String> {
    let code = code.replace("\\\n", " ");
    match language {
        "sh" => code.lines().map(str::to_owned).collect(),
        "text" => code.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_command_that_cannot_be_typed_is_found() {
    for line in [
        "fedplug run",
        "fedplug runs mine.toml",
        "fedplug run mine.toml --seed 3",
        "fedplug plot runs/a --tag RMSE/local_test --x rounds",
        "fedplug run configs/no-such.toml",
        "fedplug run configs/linear.toml --set federation.round=3",
        "make everything",
        "make bench ROW=step",
        "cargo bench -p no-such-crate",
        "fedplgu run mine.toml",
        "fedplug run 'mine.toml",
    ] {
        assert!(refusal(line).is_some(), "{line}");
    }
    let right = "fedplug run configs/linear.toml --set federation.rounds=3 > log # so many";
    assert_eq!(refusal(right), None);
    assert_eq!(commands("text", "$ fedplug \\\n  a\nb\n"), ["fedplug    a"]);
}

#[test]
fn every_command_of_a_block_can_be_typed() {
    let mut count = 0;
    for page in pages() {
        for (language, code) in blocks(&text(&page)) {
            assert!(
                ["sh", "toml", "rust", "python", "text"].contains(&language.as_str()),
                "{}: `{language}`",
                page.display()
            );
            for command in commands(&language, &code) {
                count += 1;
                let refusal = refusal(&command);
                assert!(refusal.is_none(), "{}: {command}: {}", page.display(), refusal.unwrap_or_default());
            }
        }
    }
    assert!(count > 30, "{count}");
}

/// Words in the middle of a sentence that begin with `fedplug` are its commands; they may lack what is obvious there.
#[test]
fn every_command_and_flag_of_a_sentence_exists() {
    let mut count = 0;
    for page in pages() {
        let page_text = text(&page);
        for event in Parser::new(&page_text) {
            let Event::Code(code) = event else { continue };
            let Some(words) = code.strip_prefix("fedplug ").and_then(shlex::split) else { continue };
            count += 1;
            let mut command = Cli::command();
            command.build();
            let mut command = &command;
            for word in words {
                let flag = word.strip_prefix("--").map(|flag| flag.split('=').next().unwrap().to_owned());
                if let Some(inner) = command.find_subcommand(&word) {
                    command = inner;
                } else if let Some(flag) = flag {
                    let known = command.get_arguments().any(|argument| argument.get_long() == Some(flag.as_str()));
                    assert!(known, "{}: `{code}` has no --{flag}", page.display());
                } else {
                    assert!(!command.has_subcommands(), "{}: `{code}`: no command `{word}`", page.display());
                }
            }
        }
    }
    assert!(count > 10, "{count}");
}

/// What stands in the place of data and weights that only the reader has.
fn at_home(name: &str) -> Vec<String> {
    let sample = format!("dataset.root={:?}", root().join("configs/sample"));
    let trunk = "model.pretrained={ hidden-size = 32, layers = 2, heads = 4, intermediate-size = 64 }";
    match name {
        "repeated" | "chosen" => vec![sample],
        "masked-lm" => vec![trunk.to_owned()],
        "fedavg_multitask" => vec![sample, trunk.to_owned(), "federation.devices=[\"cpu\"]".to_owned()],
        _ => Vec::new(),
    }
}

#[test]
fn every_experiment_of_a_page_passes_check() {
    let (mut names, mut site_files) = (Vec::new(), 0);
    for page in pages() {
        for (_, code) in blocks(&text(&page)).into_iter().filter(|(language, _)| language == "toml") {
            if !code.contains("[federation]") {
                check_site_file(&code).unwrap_or_else(|failure| panic!("{}: {failure}", page.display()));
                site_files += 1;
                continue;
            }
            let bench = Bench::new();
            let row =
                |k: usize| format!("{},{},{k}.5,{}\n", "ACDEFGHIKL".repeat(k), "MNPQ".repeat(k), ["a", "b"][k % 2]);
            let rows: String = (1..=24).map(row).collect();
            bench.write("data/one.csv", &format!("heavy,light,fitness,hospital\n{rows}"));
            let file = bench.write("experiment.toml", &code);
            let experiment = Draft::read(&file, &[]).unwrap().whole().unwrap();
            if experiment.model.plugin == "amplify" && !has_libtorch() {
                skip("there is no libtorch");
                continue;
            }
            let mut arguments = vec!["check".to_owned(), file.display().to_string()];
            arguments.extend(at_home(&experiment.name).into_iter().flat_map(|change| ["--set".to_owned(), change]));
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let told = bench.command(&arguments).current_dir(bench.path("")).output().unwrap();
            assert!(told.status.success(), "{}: {}", page.display(), String::from_utf8_lossy(&told.stderr));
            names.push(experiment.name);
        }
    }
    let wanted = ["mine", "ridge", "masked-lm", "fedavg_multitask", "repeated", "chosen", "trial"].map(str::to_owned);
    assert_eq!((&names[..], site_files), (&wanted[..], 3));
}

/// A heading as the end of a link.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    let (mut anchors, mut heading) = (BTreeSet::new(), None::<String>);
    for event in Parser::new(page) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => anchors.extend(heading.take().map(|heading| anchor(&heading))),
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }
    anchors
}

/// A page of the book links to the book alone: nothing else is there once it is built.
#[test]
fn every_link_leads_somewhere_and_the_book_has_every_page() {
    let mut missing = Vec::new();
    let mut in_the_book = BTreeSet::from([PathBuf::from("SUMMARY.md")]);
    for page in pages() {
        let page_text = text(&page);
        for event in Parser::new(&page_text) {
            let (Event::Start(Tag::Link { dest_url: to, .. }) | Event::Start(Tag::Image { dest_url: to, .. })) = event
            else {
                continue;
            };
            if to.contains("://") {
                continue;
            }
            let (path, heading) = to.split_once('#').unwrap_or((&to, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            if page.ends_with("SUMMARY.md") {
                in_the_book.insert(path.into());
            }
            let depth = page.strip_prefix("docs/src").map_or(usize::MAX, |page| page.components().count() - 1);
            let leaves_the_book = path.split('/').take_while(|step| *step == "..").count() > depth;
            let leads = !leaves_the_book
                && root().join(&target).exists()
                && (heading.is_empty() || anchors(&text(&target)).contains(heading));
            if !leads {
                missing.push(format!("{}: {to}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    let pages = pages().into_iter().filter_map(|page| page.strip_prefix("docs/src").map(Path::to_owned).ok());
    assert_eq!(in_the_book, pages.collect());
}

/// The first block is built by `authoring`; the second is the test that `plugin new` writes, which `authoring` runs.
#[test]
fn every_block_of_rust_is_built() {
    let rust = |page: &Path| -> Vec<String> {
        let blocks = blocks(&text(page)).into_iter().filter(|(language, _)| language == "rust");
        blocks.map(|(_, code)| code).collect()
    };
    for page in pages() {
        assert!(page.starts_with("plugins") || rust(&page).is_empty(), "{}", page.display());
    }
    let guide = rust(Path::new("plugins/README.md"));
    assert_eq!(guide.len(), 2);
    let bench = Bench::new();
    let told = bench.fedplug(&["plugin", "new", "aggregator", "x", "--output", bench.path("").to_str().unwrap()]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let written = std::fs::read_to_string(bench.path("aggregator-x/tests/conformance.rs")).unwrap();
    assert!(written.contains(&guide[1]), "{written}");
}
