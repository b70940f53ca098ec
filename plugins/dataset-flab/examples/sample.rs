//! Writes the synthetic sample data in FLAb's layout: `cargo run -p dataset-flab --example sample -- configs/sample`.
//!
//! Each antibody draws its own bias for or against hydrophobic, charged, aromatic and small residues, and its CDRs from
//! that bias. What is measured of it is a mixture of the same few properties of its CDRs in every task, with the task's
//! own weights, offset and unit, plus noise: so tasks can learn from one another.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rand::distr::weighted::WeightedIndex;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// The seed of everything.
const SEED: u64 = 42;
/// Antibodies of each task.
const ROWS: usize = 64;
/// Standard deviation of the noise, in that of what the sequence determines.
const NOISE: f64 = 0.25;
/// Standard deviation of an antibody's bias towards each property, in natural logarithms of odds.
const BIAS: f64 = 0.9;
/// Part of a framework's residues that differ from its consensus.
const MUTATIONS: f64 = 0.03;

/// A task: its weight for each of [`PROPERTIES`], the mean and the standard deviation of its values, and its decimals.
struct Assay {
    task: &'static str,
    weights: [f64; 4],
    mean: f64,
    sd: f64,
    decimals: usize,
}

const ASSAYS: [Assay; 6] = [
    Assay { task: "aggregation", weights: [0.8, 0.2, 0.5, 0.1], mean: 0.5, sd: 1.0, decimals: 3 },
    Assay { task: "binding", weights: [0.3, -0.3, 0.9, -0.1], mean: 1.2, sd: 0.9, decimals: 3 },
    Assay { task: "expression", weights: [-0.7, -0.3, -0.4, 0.5], mean: 0.0, sd: 1.1, decimals: 3 },
    Assay { task: "immunogenicity", weights: [0.5, 0.6, 0.2, -0.4], mean: 0.3, sd: 1.0, decimals: 3 },
    Assay { task: "polyreactivity", weights: [0.3, 0.9, 0.4, 0.1], mean: -0.4, sd: 0.8, decimals: 3 },
    Assay { task: "tm", weights: [0.7, -0.2, 0.4, -0.5], mean: 0.8, sd: 1.2, decimals: 3 },
];

/// The residues, and how often each stands in a CDR of an antibody without bias.
const RESIDUES: [(char, f64); 20] = [
    ('A', 6.0),
    ('C', 0.5),
    ('D', 6.5),
    ('E', 3.0),
    ('F', 3.5),
    ('G', 9.5),
    ('H', 2.0),
    ('I', 3.5),
    ('K', 3.0),
    ('L', 4.5),
    ('M', 1.5),
    ('N', 5.5),
    ('P', 3.5),
    ('Q', 4.0),
    ('R', 4.5),
    ('S', 13.5),
    ('T', 7.0),
    ('V', 4.0),
    ('W', 2.0),
    ('Y', 12.5),
];

/// What the latent properties are made of: for each, residues and their values.
const PROPERTIES: [&[(&str, f64)]; 4] = [
    // Hydrophobic, and strongly polar.
    &[("AILMVF", 1.0), ("WC", 0.5), ("DEKNQR", -0.7)],
    // Charged.
    &[("KR", 1.0), ("H", 0.3), ("DE", -1.0)],
    // Aromatic.
    &[("FWY", 1.0), ("H", 0.4)],
    // Small and flexible.
    &[("GS", 1.0), ("AT", 0.5)],
];

/// A chain: frameworks, between which stand CDRs of random lengths.
struct Chain {
    frameworks: [&'static str; 4],
    cdrs: [std::ops::RangeInclusive<usize>; 3],
}

const HEAVY: Chain = Chain {
    frameworks: [
        "EVQLVESGGGLVQPGGSLRLSCAAS",
        "MSWVRQAPGKGLEWVSA",
        "YYADSVKGRFTISRDNSKNTLYLQMNSLRAEDTAVYYC",
        "WGQGTLVTVSS",
    ],
    cdrs: [7..=9, 6..=8, 6..=16],
};
const LIGHT: Chain = Chain {
    frameworks: [
        "DIQMTQSPSSLSASVGDRVTITCRAS",
        "LNWYQQKPGKAPKLLIY",
        "SLQSGVPSRFSGSGSGTDFTLTISSLQPEDFATYYC",
        "FGQGTKVEIK",
    ],
    cdrs: [5..=8, 3..=3, 8..=10],
};

fn property(index: usize, residue: char) -> f64 {
    PROPERTIES[index].iter().find(|(residues, _)| residues.contains(residue)).map_or(0.0, |(_, value)| *value)
}

/// A chain, and its CDRs alone.
fn chain(chain: &Chain, cdr: &WeightedIndex<f64>, rng: &mut impl Rng) -> (String, String) {
    let (mut whole, mut cdrs) = (String::new(), String::new());
    for (i, framework) in chain.frameworks.iter().enumerate() {
        for residue in framework.chars() {
            let keep = residue == 'C' || residue == 'W' || !rng.random_bool(MUTATIONS);
            whole.push(if keep { residue } else { RESIDUES[cdr.sample(rng)].0 });
        }
        if let Some(lengths) = chain.cdrs.get(i) {
            let length = rng.random_range(lengths.clone());
            let loop_: String = (0..length).map(|_| RESIDUES[cdr.sample(rng)].0).collect();
            whole += &loop_;
            cdrs += &loop_;
        }
    }
    (whole, cdrs)
}

/// Both chains of a random antibody, and the mean of each property over its CDRs.
fn antibody(rng: &mut impl Rng) -> (String, String, [f64; 4]) {
    let bias: [f64; 4] = std::array::from_fn(|_| BIAS * rng.sample::<f64, _>(StandardNormal));
    let odds = |&(residue, often): &(char, f64)| {
        often * bias.iter().enumerate().map(|(i, bias)| bias * property(i, residue)).sum::<f64>().exp()
    };
    let cdr = WeightedIndex::new(RESIDUES.iter().map(odds)).expect("all odds are positive");
    let ((heavy, cdrs), (light, more)) = (chain(&HEAVY, &cdr, rng), chain(&LIGHT, &cdr, rng));
    let cdrs = cdrs + &more;
    let latents =
        std::array::from_fn(|i| cdrs.chars().map(|residue| property(i, residue)).sum::<f64>() / cdrs.len() as f64);
    (heavy, light, latents)
}

/// The values with mean 0 and standard deviation 1.
fn standardised(values: Vec<f64>) -> Vec<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let sd = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    values.into_iter().map(|v| (v - mean) / sd).collect()
}

/// The CSV file of one task.
fn csv(assay: &Assay, rng: &mut impl Rng) -> String {
    let antibodies: Vec<_> = (0..ROWS).map(|_| antibody(rng)).collect();
    let latents: [Vec<f64>; 4] = std::array::from_fn(|i| standardised(antibodies.iter().map(|a| a.2[i]).collect()));
    let mixture = |row: usize| assay.weights.iter().zip(&latents).map(|(weight, latent)| weight * latent[row]).sum();
    let signal = standardised((0..ROWS).map(mixture).collect());
    let mut csv = "heavy,light,fitness\n".to_owned();
    for ((heavy, light, _), signal) in antibodies.iter().zip(signal) {
        let value = assay.mean + assay.sd * (signal + NOISE * rng.sample::<f64, _>(StandardNormal));
        // Writing to a string cannot fail.
        let _ = writeln!(csv, "{heavy},{light},{value:.*}", assay.decimals);
    }
    csv
}

fn readme() -> String {
    let tasks: String = ASSAYS.iter().map(|a| format!("| {} | {} | {} |\n", a.task, a.mean, a.sd)).collect();
    format!(
        "# Sample data: SYNTHETIC\n\n\
         Nothing here was measured, and the sequences are random. The files have FLAb's layout \
         (`TASK/*.csv` with `heavy`, `light` and `fitness`), so that an experiment can be tried without a download.\n\n\
         {ROWS} antibodies a task. The frameworks are one consensus with {}% random mutations; each antibody draws its own \
         bias for or against hydrophobic, charged, aromatic and small residues, and its CDRs from that bias. The fitness \
         is a mixture of these four properties of the CDRs, with weights of the task's own, plus Gaussian noise of {}% of \
         the mixture's standard deviation.\n\n\
         | task | mean | standard deviation |\n|---|---|---|\n{tasks}\n\
         Written by `cargo run -p dataset-flab --example sample -- configs/sample`; a test checks that it still writes \
         these very bytes.\n",
        100.0 * MUTATIONS,
        100.0 * NOISE
    )
}

/// All files, with their paths in the folder.
fn files() -> Vec<(PathBuf, String)> {
    let mut files = vec![(PathBuf::from("README.md"), readme())];
    for (i, assay) in ASSAYS.iter().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        rng.set_stream(i as u64);
        files.push((Path::new(assay.task).join("synthetic.csv"), csv(assay, &mut rng)));
    }
    files
}

fn write(folder: &Path) -> std::io::Result<()> {
    for (path, text) in files() {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
        std::fs::write(path, text)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: sample FOLDER");
        return ExitCode::from(2);
    };
    match write(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}: {error}", Path::new(&folder).display());
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_files_are_what_the_generator_writes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/sample");
        for (path, text) in files() {
            let committed = std::fs::read_to_string(folder.join(&path)).unwrap();
            assert!(committed == text, "{} differs: run the example `sample` again", path.display());
        }
    }

    #[test]
    fn chains_have_natural_lengths_and_files_stay_small() {
        let files = files();
        assert!(files.iter().map(|(_, text)| text.len()).sum::<usize>() < 400_000);
        for (_, csv) in &files[1..] {
            for line in csv.lines().skip(1) {
                let [heavy, light, fitness] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
                assert!((110..=125).contains(&heavy.len()) && (105..=112).contains(&light.len()), "{line}");
                assert!(fitness.parse::<f64>().unwrap().is_finite());
            }
        }
    }
}
