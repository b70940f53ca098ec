//! The chains of an antibody, and the text that a model reads of them.

use std::borrow::Cow;

use fedplug_tables::text;
use plugin_api::JsonSchema;
use serde::{Deserialize, Serialize};

/// The chains that are read. A model reads them in the column `combined`, with a `|` between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Chains {
    /// Both: `HEAVY|LIGHT`. Files and rows that lack one are skipped.
    #[default]
    Paired,
    /// The heavy chain only, as for nanobodies: `HEAVY`. Light chains are not read.
    Heavy,
    /// The light chain only: `LIGHT`. Heavy chains are not read.
    Light,
    /// All that a row has: `HEAVY|LIGHT`, `HEAVY` or `LIGHT`.
    Any,
}

/// The columns of the chains, by their indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainColumns {
    /// One column with a `|` between the chains.
    Combined(usize),
    Separate {
        heavy: Option<usize>,
        light: Option<usize>,
    },
}

impl ChainColumns {
    /// The indices of the columns that `chains` reads.
    pub(crate) fn indices(self, chains: Chains) -> impl Iterator<Item = usize> {
        let (first, second) = match self {
            Self::Combined(combined) => (Some(combined), None),
            Self::Separate { heavy, light } => {
                (heavy.filter(|_| chains != Chains::Light), light.filter(|_| chains != Chains::Heavy))
            }
        };
        first.into_iter().chain(second)
    }
}

/// The chains that a row lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissingChain {
    Both,
    Heavy,
    Light,
}

impl MissingChain {
    /// All of them, in the order of reports.
    pub(crate) const ALL: [Self; 3] = [Self::Both, Self::Heavy, Self::Light];

    /// The reason for skipping a row.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Both => "no heavy or light chain",
            Self::Heavy => "no heavy chain",
            Self::Light => "no light chain",
        }
    }

    /// The same for a row of measurements, with the key that would accept it.
    pub(crate) fn advice(self, chains: Chains) -> String {
        let single = chains == Chains::Paired && self != Self::Both;
        let advice = if single { "; `chains = \"any\"` accepts single chains" } else { "" };
        format!("{}{advice}", self.reason())
    }
}

/// The text that a model reads of a row: one chain, or two with a `|` between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Combined<'a> {
    first: Cow<'a, str>,
    second: Option<Cow<'a, str>>,
}

impl Combined<'_> {
    /// The parts of the text, to be concatenated.
    pub(crate) fn parts(&self) -> [&str; 3] {
        match &self.second {
            Some(second) => [&self.first, "|", second],
            None => [&self.first, "", ""],
        }
    }
}

impl Chains {
    /// The columns of the chains, or the names of those that are missing. `position` returns a column's index. If `combined`
    /// is true, the column `combined` replaces the others.
    pub(crate) fn columns(
        self,
        position: impl Fn(&str) -> Option<usize>,
        combined: bool,
    ) -> Result<ChainColumns, Vec<&'static str>> {
        if let Some(combined) = position("combined").filter(|_| combined) {
            return Ok(ChainColumns::Combined(combined));
        }
        let (heavy, light) = (position("heavy"), position("light"));
        let missing: &[(&str, Option<usize>)] = match self {
            Self::Paired => &[("heavy", heavy), ("light", light)],
            Self::Any if heavy.or(light).is_some() => &[],
            Self::Any => &[("heavy", heavy), ("light", light)],
            Self::Heavy => &[("heavy", heavy)],
            Self::Light => &[("light", light)],
        };
        let missing: Vec<&str> = missing.iter().filter(|(_, column)| column.is_none()).map(|(name, _)| *name).collect();
        if missing.is_empty() { Ok(ChainColumns::Separate { heavy, light }) } else { Err(missing) }
    }

    /// The text that a model reads of these two fields.
    pub(crate) fn combine<'a>(self, heavy: &'a str, light: &'a str) -> Result<Combined<'a>, MissingChain> {
        let (heavy, light) = match self {
            Self::Paired | Self::Any => (text::normalise_chain(heavy), chain_or_chains(light)),
            Self::Heavy => (text::normalise_chain(heavy), None),
            Self::Light => (None, chain_or_chains(light)),
        };
        match (self, heavy, light) {
            (_, Some(first), Some(light)) => Ok(Combined { first, second: Some(light) }),
            (Self::Heavy | Self::Any, Some(first), None) | (Self::Light | Self::Any, None, Some(first)) => {
                Ok(Combined { first, second: None })
            }
            (Self::Heavy, None, _) => Err(MissingChain::Heavy),
            (Self::Light, _, None) => Err(MissingChain::Light),
            (_, None, None) => Err(MissingChain::Both),
            (_, None, Some(_)) => Err(MissingChain::Heavy),
            (_, Some(_), None) => Err(MissingChain::Light),
        }
    }

    fn halves(self, combined: &str) -> (&str, &str) {
        combined.split_once('|').unwrap_or(if self == Self::Light { ("", combined) } else { (combined, "") })
    }

    /// The text that a model reads of a row with chains in these columns. `field` returns the field at an index.
    pub(crate) fn read<'a>(
        self,
        columns: ChainColumns,
        field: impl Fn(usize) -> &'a str,
    ) -> Result<Combined<'a>, MissingChain> {
        let (heavy, light) = self.pair(columns, field);
        self.combine(heavy, light)
    }

    /// The fields of a row's chains that are read and not missing, as they are in the file.
    pub(crate) fn fields<'a>(
        self,
        columns: ChainColumns,
        field: impl Fn(usize) -> &'a str,
    ) -> impl Iterator<Item = &'a str> {
        let (heavy, light) = self.pair(columns, field);
        let fields = [(heavy, Self::Light), (light, Self::Heavy)];
        fields
            .into_iter()
            .filter(move |(field, other)| self != *other && text::normalise_chain(field).is_some())
            .map(|pair| pair.0)
    }

    fn pair<'a>(self, columns: ChainColumns, field: impl Fn(usize) -> &'a str) -> (&'a str, &'a str) {
        let at = |column: Option<usize>| column.map_or("", &field);
        match columns {
            ChainColumns::Combined(combined) => self.halves(field(combined)),
            ChainColumns::Separate { heavy, light } => (at(heavy), at(light)),
        }
    }
}

/// A chain, or several with a `|` between them, none of which may be missing.
fn chain_or_chains(field: &str) -> Option<Cow<'_, str>> {
    if !field.contains('|') {
        return text::normalise_chain(field);
    }
    let chains: Option<Vec<_>> = field.split('|').map(text::normalise_chain).collect();
    chains.map(|chains| chains.join("|").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_chains_selects_the_text_that_a_model_reads() {
        use Chains::{Any, Heavy, Light, Paired};
        use MissingChain as No;
        for (heavy, light, wanted) in [
            ("EVQ", "DIQ", [Ok("EVQ|DIQ"), Ok("EVQ"), Ok("DIQ"), Ok("EVQ|DIQ")]),
            (" ev\u{200b}q", "d iq\n", [Ok("EVQ|DIQ"), Ok("EVQ"), Ok("DIQ"), Ok("EVQ|DIQ")]),
            ("EVQ", "NaN", [Err(No::Light), Ok("EVQ"), Err(No::Light), Ok("EVQ")]),
            ("-", "DIQ", [Err(No::Heavy), Err(No::Heavy), Ok("DIQ"), Ok("DIQ")]),
            ("", "None", [Err(No::Both), Err(No::Heavy), Err(No::Light), Err(No::Both)]),
            ("EVQ", "0", [Err(No::Light), Ok("EVQ"), Err(No::Light), Ok("EVQ")]),
        ] {
            let combined = format!("{heavy}|{light}");
            for (chains, wanted) in [Paired, Heavy, Light, Any].into_iter().zip(wanted) {
                for read in [chains.combine(heavy, light), chains.read(ChainColumns::Combined(0), |_| &combined)] {
                    assert_eq!(read.map(|combined| combined.parts().concat()), wanted.map(str::to_owned), "{chains:?}");
                }
            }
        }
    }

    #[test]
    fn combined_without_a_bar_is_a_single_chain() {
        let read = |chains: Chains, text| {
            chains.read(ChainColumns::Combined(0), |_| text).map(|combined| combined.parts().concat())
        };
        assert_eq!(read(Chains::Paired, "EVQ"), Err(MissingChain::Light));
        for chains in [Chains::Heavy, Chains::Light, Chains::Any] {
            assert_eq!(read(chains, "EVQ"), Ok("EVQ".to_owned()));
            assert!(read(chains, "nan").is_err());
        }
        assert_eq!(read(Chains::Paired, "A|B|c"), Ok("A|B|C".to_owned()));
        assert_eq!(read(Chains::Paired, "A|B|nan"), Err(MissingChain::Light));
    }
}
