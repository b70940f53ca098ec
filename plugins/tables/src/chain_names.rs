//! Parses names of FASTA records into an antibody's name and a chain.

/// A chain of an antibody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chain {
    Heavy,
    Light,
}

impl Chain {
    /// The word for messages.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Heavy => "heavy",
            Self::Light => "light",
        }
    }

    /// The chain that a column's name says.
    pub(crate) fn of_column(name: &str) -> Option<Self> {
        parse_name(name)?.chain
    }
}

/// A parsed name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChainName {
    /// The antibody: the record's name in lower case, without the words for the chain.
    pub(crate) antibody: String,
    /// The chain, if the name says one.
    pub(crate) chain: Option<Chain>,
}

/// Words that go with a word for the chain and are not part of the antibody's name.
const FILLERS: [&str; 7] = ["chain", "chains", "variable", "region", "domain", "sequence", "of"];

/// Parses the name of a record. `None` if it names both chains.
///
/// White space and `|` separate fields. The first field with a word for a chain decides: `ab0_H`, `ab0 heavy chain`,
/// `ab0|VL`, `ab0.HC`, `kappa ab0`, `mAb7VH`, `ab0|IGKV1-39`. The letters `H` and `L` count at the start or end of the first
/// field, or as a field of their own if there is no such word. The antibody's name is the rest of the first field, or the
/// fields before the deciding one.
pub(crate) fn parse_name(name: &str) -> Option<ChainName> {
    let fields: Vec<&str> =
        name.split(|c: char| c.is_whitespace() || c == '|').filter(|field| !field.is_empty()).collect();
    let first_letter = fields.first().and_then(|field| letter_of_field(0, field));
    let Some(Decision { index, chain, by_letter }) = decide(&fields) else {
        return Some(ChainName { antibody: name.to_lowercase(), chain: None });
    };
    // The first field may have a word for one chain and a letter for the other.
    let chain = chain.filter(|chain| index > 0 || first_letter.is_none_or(|letter| letter == *chain))?;
    // `ab0_H light chain` names both; further on, a description may mention the other chain.
    let next = fields.get(1).and_then(|field| chain_of_words(field)).flatten().filter(|next| *next != chain);
    if next.is_some() && fields.get(2).is_some_and(|field| field.eq_ignore_ascii_case("chain")) {
        return None;
    }
    let rest = |range: std::ops::Range<usize>| {
        let named = range.map(|at| antibody(fields[at], by_letter && at == index));
        named.collect::<Vec<_>>().join(" ").trim().to_owned()
    };
    let before = rest(0..index.max(1));
    let antibody = if before.is_empty() { rest(0..fields.len()) } else { before };
    Some(ChainName { antibody: antibody.to_lowercase(), chain: Some(chain) })
}

/// The field that says the chain.
struct Decision {
    index: usize,
    /// `None` if its words disagree.
    chain: Option<Chain>,
    /// Whether a letter says it, and not a word.
    by_letter: bool,
}

/// The first field decides, by a word or else by a letter, and then the other fields, by a word or else by a letter.
fn decide(fields: &[&str]) -> Option<Decision> {
    let by_word = |index: usize| {
        let chain = chain_of_words(fields[index])?;
        Some(Decision { index, chain, by_letter: false })
    };
    let by_letter = |index: usize| {
        let chain = Some(letter_of_field(index, fields[index])?);
        Some(Decision { index, chain, by_letter: true })
    };
    let (mut first, mut others) = (0..fields.len().min(1), 1..fields.len());
    let (mut first_again, mut others_again) = (first.clone(), others.clone());
    first
        .find_map(by_word)
        .or_else(|| first_again.find_map(by_letter))
        .or_else(|| others.find_map(by_word))
        .or_else(|| others_again.find_map(by_letter))
}

/// The chain of a field with words for it: `None` without such words, `Some(None)` if they disagree.
fn chain_of_words(field: &str) -> Option<Option<Chain>> {
    let mut chains = pieces(field).filter_map(|(word, _)| spelled(word)).map(|(chain, _)| chain);
    let first = chains.next()?;
    Some(chains.all(|other| other == first).then_some(first))
}

/// The chain that a letter says: at the end or start of the first field, or as a field of its own.
fn letter_of_field(index: usize, field: &str) -> Option<Chain> {
    let words: Vec<&str> = pieces(field).map(|(word, _)| word).filter(|word| !word.is_empty()).collect();
    match &words[..] {
        [first, .., last] if index == 0 => letter(last).or_else(|| letter(first)),
        [only] => letter(only),
        _ => None,
    }
}

/// A field without the words for a chain, and on request without the letters for one at its ends.
fn antibody(field: &str, without_letters: bool) -> String {
    let count = pieces(field).count();
    let mut kept = String::new();
    for (index, (word, piece)) in pieces(field).enumerate() {
        let at_end = without_letters && (index == 0 || index + 1 == count);
        match spelled(word) {
            Some((_, before)) => kept += before,
            None if at_end && letter(word).is_some() => {}
            None if FILLERS.iter().any(|filler| filler.eq_ignore_ascii_case(word)) => {}
            None => kept += piece,
        }
    }
    kept.trim_matches(|c: char| !c.is_alphanumeric()).to_owned()
}

/// The words of a field, each also with the separator after it.
fn pieces(field: &str) -> impl Iterator<Item = (&str, &str)> {
    let separator = |c: char| !c.is_alphanumeric();
    field.split_inclusive(separator).map(move |piece| (piece.trim_end_matches(separator), piece))
}

fn letter(word: &str) -> Option<Chain> {
    match word {
        "H" | "h" => Some(Chain::Heavy),
        "L" | "l" => Some(Chain::Light),
        _ => None,
    }
}

/// The chain that a word, or its end in capitals, names, and the part of the word before that.
fn spelled(word: &str) -> Option<(Chain, &str)> {
    let lower = word.to_ascii_lowercase();
    let whole = match lower.as_str() {
        "heavy" | "hc" | "vh" | "vhh" | "heavychain" | "hchain" | "vheavy" | "igh" => Some(Chain::Heavy),
        "light" | "lc" | "vl" | "vk" | "kappa" | "lambda" | "lightchain" | "lchain" | "vlight" | "vkappa"
        | "vlambda" | "igk" | "igl" => Some(Chain::Light),
        // Genes and constant regions: `IGHV3`, `IGHG1`, `IGKC`.
        _ => match (lower.get(..3), lower.get(3..4)) {
            (Some("igh"), Some("v" | "d" | "j" | "g" | "m" | "a" | "e")) => Some(Chain::Heavy),
            (Some("igk" | "igl"), Some("v" | "j" | "c")) => Some(Chain::Light),
            _ => None,
        },
    };
    if let Some(chain) = whole {
        return Some((chain, ""));
    }
    let ends =
        [("VH", Chain::Heavy), ("HC", Chain::Heavy), ("VL", Chain::Light), ("LC", Chain::Light), ("VK", Chain::Light)];
    ends.into_iter().find_map(|(end, chain)| {
        let before = word.strip_suffix(end)?;
        let is_suffix = before.ends_with(|c: char| c.is_ascii_digit() || c.is_lowercase());
        is_suffix.then_some((chain, before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_into_antibody_and_chain() {
        use Chain::{Heavy, Light};
        for (name, antibody, chain) in [
            ("ab0_H", "ab0", Heavy),
            ("ab0_L", "ab0", Light),
            ("ab0 heavy", "ab0", Heavy),
            ("ab0 light chain [Homo sapiens]", "ab0", Light),
            ("ab0|VH", "ab0", Heavy),
            ("ab0_heavy_chain", "ab0", Heavy),
            ("ab0-Light-Chain", "ab0", Light),
            ("ab0.H", "ab0", Heavy),
            ("1ABC_H", "1abc", Heavy),
            ("1ABC:L", "1abc", Light),
            ("1ABC Chain H", "1abc", Heavy),
            ("ab0/HC", "ab0", Heavy),
            ("ab0 LC", "ab0", Light),
            ("ab0_VL", "ab0", Light),
            ("ab0 kappa", "ab0", Light),
            ("ab0_lambda", "ab0", Light),
            ("heavy_ab0", "ab0", Heavy),
            ("VH|ab0", "ab0", Heavy),
            ("L ab0", "ab0", Light),
            ("heavy chain of ab0", "ab0", Heavy),
            ("antibody 1 heavy chain", "antibody 1", Heavy),
            ("anti-CD3 clone 5 VL", "anti-cd3 clone 5", Light),
            ("mAb7VH", "mab7", Heavy),
            ("ab0_VH_1", "ab0_1", Heavy),
            ("ab0|IGKV1-39*01", "ab0", Light),
            ("ab0_H paired with a light chain", "ab0", Heavy),
            ("antibody L heavy", "antibody l", Heavy),
            ("H", "", Heavy),
        ] {
            assert_eq!(
                parse_name(name),
                Some(ChainName { antibody: antibody.to_owned(), chain: Some(chain) }),
                "{name}"
            );
        }
        for name in ["ab0", "1", "seq 17", "10E8", "HIV1", "Hal", "ab0_HL", "sp|P01857|HUMAN"] {
            assert_eq!(parse_name(name), Some(ChainName { antibody: name.to_lowercase(), chain: None }), "{name}");
        }
        for name in ["ab0_VH_VL", "ab0 kappa-heavy", "L-19_heavy", "ab0_H light chain", "ab0_L heavy chain"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
