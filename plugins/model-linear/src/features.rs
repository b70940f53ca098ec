//! The features of a text: how often each word of k characters occurs in it.
//!
//! Input columns must be text; a numeric input column is an error that names it.

use plugin_api::{Result, Table, TaskSpec};

/// The letters A to Z, and one symbol for all other characters.
const LETTERS: usize = 27;

/// The non-zero features of one row, as pairs of index and value, in increasing order of index.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Features(Vec<(usize, f32)>);

impl Features {
    /// The number of features for words of `kmer` letters: one per possible word.
    pub(crate) fn number(kmer: usize) -> usize {
        LETTERS.pow(kmer as u32)
    }

    /// The features of each row, over all input columns of the task together: its k-mers, the words that start at any
    /// position (the spectrum of Leslie, Eskin and Noble, PSB 2002, *The spectrum kernel*).
    ///
    /// # Errors
    /// If an input column is not text.
    pub(crate) fn of(spec: &TaskSpec, table: &Table, kmer: usize) -> Result<Vec<Self>> {
        let mut rows = vec![Vec::new(); table.rows()];
        for input in &spec.inputs {
            for (words, text) in rows.iter_mut().zip(table.text(input)?.iter()) {
                let letter = |byte: u8| usize::from(byte.wrapping_sub(b'A')).min(LETTERS - 1);
                let letters: Vec<usize> = text.bytes().map(letter).collect();
                let word = |letters: &[usize]| letters.iter().fold(0, |word, letter| word * LETTERS + letter);
                words.extend(letters.windows(kmer).map(word));
            }
        }
        Ok(rows
            .into_iter()
            .map(|words| if kmer == 1 { Self::shares(words) } else { Self::spectrum(words, kmer) })
            .collect())
    }

    /// The fraction of each letter, times 27 and minus 1, so that the mean over the letters is 0.
    fn shares(letters: Vec<usize>) -> Self {
        let mut counts = [0.0_f32; LETTERS];
        letters.into_iter().for_each(|letter| counts[letter] += 1.0);
        let all = counts.iter().sum::<f32>().max(1.0);
        Self(counts.iter().map(|count| LETTERS as f32 * count / all - 1.0).enumerate().collect())
    }

    /// The count of each word, scaled so that the norm is the square root of the number of features. This way the
    /// random trunk's output has the same size for each `kmer`. Most words do not occur in a text; their zeros are not
    /// stored.
    fn spectrum(mut words: Vec<usize>, kmer: usize) -> Self {
        words.sort_unstable();
        let counts: Vec<(usize, f32)> = words.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as f32)).collect();
        let scale = (Self::number(kmer) as f32 / counts.iter().map(|(_, count)| count * count).sum::<f32>()).sqrt();
        Self(counts.into_iter().map(|(word, count)| (word, count * scale)).collect())
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
