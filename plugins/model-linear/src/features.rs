//! The features of a text: how often each word of k letters occurs in it, or which letter is at each position.
//!
//! Input columns must be text; a numeric input column is an error that names it.

use plugin_api::{Error, Result, Table, TaskSpec};

use crate::config::{Config, FeatureKind, Method};

/// The letters A to Z, and one symbol for all other characters.
const LETTERS: usize = 27;

/// How texts become features.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FeatureMap {
    /// The k-mers, the words that start at any position (the spectrum of Leslie, Eskin and Noble, PSB 2002, *The spectrum
    /// kernel*).
    KMers { kmer: usize, scaled: bool },
    /// The letter at each position; so many positions for each chain.
    OneHot { positions: Vec<usize>, scaled: bool },
    /// None at all.
    Nothing,
}

/// The non-zero features of one row, as pairs of index and value, in increasing order of index.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Features(Vec<(usize, f32)>);

impl FeatureMap {
    /// Those of a configuration. Gradient steps need features of similar size, so they are scaled; ridge regression takes
    /// plain counts, so that its penalty means what it does elsewhere.
    pub(crate) fn new(config: &Config) -> Self {
        let scaled = config.method == Method::GradientDescent;
        match (config.method, config.features) {
            (Method::Mean, _) => Self::Nothing,
            (_, FeatureKind::KMers) => Self::KMers { kmer: config.kmer, scaled },
            (_, FeatureKind::OneHot) => Self::OneHot { positions: config.positions.clone(), scaled },
        }
    }

    /// The number of features: one per possible word, or per position and letter.
    pub(crate) fn number(&self) -> usize {
        match self {
            Self::KMers { kmer, .. } => LETTERS.pow(*kmer as u32),
            Self::OneHot { positions, .. } => positions.iter().sum::<usize>() * LETTERS,
            Self::Nothing => 0,
        }
    }

    /// The features of each row, over all input columns of the task together.
    ///
    /// # Errors
    /// If an input column is not text, or a chain is longer than its positions.
    pub(crate) fn of(&self, spec: &TaskSpec, table: &Table) -> Result<Vec<Features>> {
        let texts = spec.inputs.iter().map(|input| table.text(input)).collect::<Result<Vec<_>>>()?;
        let row = |row: usize| {
            let texts = texts.iter().map(|column| column.get(row));
            match self {
                Self::KMers { kmer, scaled } => {
                    let words = texts.flat_map(|text| words(text, *kmer)).collect();
                    Ok(match (scaled, kmer) {
                        (false, _) => Features(counts(words)),
                        (true, 1) => Features::shares(words),
                        (true, _) => Features::unit_scaled(counts(words), self.number()),
                    })
                }
                Self::OneHot { positions, scaled } => {
                    let found = one_hot(texts, positions).map_err(|what| {
                        let help = "increase `positions`: it has the positions of each chain";
                        Error::data(format!("task `{}`, row {}: {what}", spec.name, row + 1)).help(help)
                    })?;
                    Ok(if *scaled { Features::unit_scaled(found, self.number()) } else { Features(found) })
                }
                Self::Nothing => Ok(Features(Vec::new())),
            }
        };
        (0..table.rows()).map(row).collect()
    }
}

fn letter(byte: u8) -> usize {
    usize::from(byte.wrapping_sub(b'A')).min(LETTERS - 1)
}

/// The number of each word of `kmer` letters.
fn words(text: &str, kmer: usize) -> Vec<usize> {
    let letters: Vec<usize> = text.bytes().map(letter).collect();
    let word = |letters: &[usize]| letters.iter().fold(0, |word, letter| word * LETTERS + letter);
    letters.windows(kmer).map(word).collect()
}

/// How often each word occurs. Most words do not occur in a text; their zeros are not stored.
fn counts(mut words: Vec<usize>) -> Vec<(usize, f32)> {
    words.sort_unstable();
    words.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as f32)).collect()
}

/// A 1 for the letter at each position of each chain. The error says which chain is too long.
fn one_hot<'a>(
    texts: impl Iterator<Item = &'a str>,
    positions: &[usize],
) -> std::result::Result<Vec<(usize, f32)>, String> {
    let (mut found, mut first) = (Vec::new(), 0);
    for (index, chain) in texts.flat_map(|text| text.split('|')).enumerate() {
        let there = positions.get(index).copied().unwrap_or(0);
        if chain.len() > there {
            return Err(format!("chain {} has {} letters, but {there} positions", index + 1, chain.len()));
        }
        found.extend(
            chain.bytes().enumerate().map(|(position, byte)| ((first + position) * LETTERS + letter(byte), 1.0)),
        );
        first += there;
    }
    Ok(found)
}

impl Features {
    /// The fraction of each letter, times 27 and minus 1, so that the mean over the letters is 0.
    fn shares(letters: Vec<usize>) -> Self {
        let mut counts = [0.0_f32; LETTERS];
        letters.into_iter().for_each(|letter| counts[letter] += 1.0);
        let all = counts.iter().sum::<f32>().max(1.0);
        Self(counts.iter().map(|count| LETTERS as f32 * count / all - 1.0).enumerate().collect())
    }

    /// The values scaled so that the norm is the square root of the number of features. This way the random trunk's output
    /// has the same size for any features.
    fn unit_scaled(values: Vec<(usize, f32)>, number: usize) -> Self {
        let scale = (number as f32 / values.iter().map(|(_, value)| value * value).sum::<f32>()).sqrt();
        Self(values.into_iter().map(|(index, value)| (index, value * scale)).collect())
    }

    /// The features that are not 0, with their indices.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, f64)> {
        self.0.iter().map(|&(index, value)| (index, f64::from(value)))
    }

    /// The product with a row of weights.
    pub(crate) fn dot(&self, row: &[f32]) -> f32 {
        self.0.iter().map(|&(i, x)| row[i] * x).sum()
    }

    /// The squared norm.
    pub(crate) fn square(&self) -> f32 {
        self.0.iter().map(|(_, x)| x * x).sum()
    }

    /// `row -= s x`.
    pub(crate) fn subtract_from(&self, row: &mut [f32], s: f32) {
        self.0.iter().for_each(|&(i, x)| row[i] -= s * x);
    }
}
