//! Which chains of an antibody are read, and what a model sees of them.

use std::borrow::Cow;

use fedplug_tables::text;
use plugin_api::JsonSchema;
use serde::Deserialize;

/// Which chains are read. The column `combined` that a model reads holds those of a row, with a `|` between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Chains {
    /// Both: `HEAVY|LIGHT`. Files and rows that lack one are skipped.
    #[default]
    Paired,
    /// The heavy chain alone, as of nanobodies: `HEAVY`. Light chains are not read.
    Heavy,
    /// The light chain alone: `LIGHT`. Heavy chains are not read.
    Light,
    /// What a row has: `HEAVY|LIGHT`, `HEAVY` or `LIGHT`.
    Any,
}

/// Where the chains of a row stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainColumns {
    Combined(usize),
    Apart { heavy: Option<usize>, light: Option<usize> },
}

/// What a row lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissingChain {
    Both,
    Heavy,
    Light,
}

impl MissingChain {
    /// In the order in which they are reported.
    pub(crate) const ALL: [Self; 3] = [Self::Both, Self::Heavy, Self::Light];

    /// What to say of a row.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Both => "no heavy or light chain",
            Self::Heavy => "no heavy chain",
            Self::Light => "no light chain",
        }
    }

    /// The same of a row to train on, where these chains are read.
    pub(crate) fn advice(self, chains: Chains) -> String {
        let single = chains == Chains::Paired && self != Self::Both;
        let advice = if single { "; `chains = \"any\"` takes single chains" } else { "" };
        format!("{}{advice}", self.reason())
    }
}

/// What a model reads of a row: one chain, or two with a `|` between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Combined<'a> {
    first: Cow<'a, str>,
    second: Option<Cow<'a, str>>,
}

impl Combined<'_> {
    /// TextBuffer that together are it.
    pub(crate) fn parts(&self) -> [&str; 3] {
        match &self.second {
            Some(second) => [&self.first, "|", second],
            None => [&self.first, "", ""],
        }
    }
}

impl Chains {
    /// Where the chains stand among these columns, or which columns are missing. `combined` stands for both where it may.
    pub(crate) fn place(self, names: &[String], combined: bool) -> Result<ChainColumns, Vec<&'static str>> {
        let place = |wanted: &str| names.iter().position(|name| name == wanted);
        if let Some(combined) = place("combined").filter(|_| combined) {
            return Ok(ChainColumns::Combined(combined));
        }
        let (heavy, light) = (place("heavy"), place("light"));
        let missing: &[(&str, Option<usize>)] = match self {
            Self::Paired => &[("heavy", heavy), ("light", light)],
            Self::Any if heavy.or(light).is_some() => &[],
            Self::Any => &[("heavy", heavy), ("light", light)],
            Self::Heavy => &[("heavy", heavy)],
            Self::Light => &[("light", light)],
        };
        let missing: Vec<&str> = missing.iter().filter(|(_, place)| place.is_none()).map(|(name, _)| *name).collect();
        if missing.is_empty() { Ok(ChainColumns::Apart { heavy, light }) } else { Err(missing) }
    }

    /// What a model reads of these two fields.
    pub(crate) fn combine<'a>(self, heavy: &'a str, light: &'a str) -> Result<Combined<'a>, MissingChain> {
        let (heavy, light) = match self {
            Self::Paired | Self::Any => (text::normalise_chain(heavy), several(light)),
            Self::Heavy => (text::normalise_chain(heavy), None),
            Self::Light => (None, several(light)),
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

    /// What a model reads of a row whose chains stand there.
    pub(crate) fn read<'a>(
        self,
        place: ChainColumns,
        field: impl Fn(usize) -> &'a str,
    ) -> Result<Combined<'a>, MissingChain> {
        let (heavy, light) = self.pair(place, field);
        self.combine(heavy, light)
    }

    /// The chains that are read of a row, as they stand in the file; those that are missing are not among them.
    pub(crate) fn fields<'a>(
        self,
        place: ChainColumns,
        field: impl Fn(usize) -> &'a str,
    ) -> impl Iterator<Item = &'a str> {
        let (heavy, light) = self.pair(place, field);
        let fields = [(heavy, Self::Light), (light, Self::Heavy)];
        fields
            .into_iter()
            .filter(move |(field, other)| self != *other && text::normalise_chain(field).is_some())
            .map(|pair| pair.0)
    }

    fn pair<'a>(self, place: ChainColumns, field: impl Fn(usize) -> &'a str) -> (&'a str, &'a str) {
        let at = |place: Option<usize>| place.map_or("", &field);
        match place {
            ChainColumns::Combined(combined) => self.halves(field(combined)),
            ChainColumns::Apart { heavy, light } => (at(heavy), at(light)),
        }
    }
}

/// A chain, or chains with a `|` between them: all of them or none.
fn several(field: &str) -> Option<Cow<'_, str>> {
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
    fn chains_say_what_a_model_reads() {
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
    fn a_field_without_a_bar_is_a_single_chain() {
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
