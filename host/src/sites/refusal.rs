//! What a site answers if an experiment asks for more than its file allows.

use std::fmt;

/// The most broken rules that a refusal lists, and the most characters of each: a stranger caused them.
const MOST: (usize, usize) = (20, 1000);

/// Why a site does not take part: the rules of its file that are broken. The text may be sent to the server: it repeats
/// what the server sent, and nothing about the site besides its name and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Refusal {
    site: String,
    broken: Vec<Broken>,
}

/// A rule, by its key in the site's file, and how it is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) rule: &'static str,
    pub(crate) reason: String,
}

impl Broken {
    pub(crate) fn new(rule: &'static str, reason: impl Into<String>) -> Self {
        Self { rule, reason: reason.into() }
    }
}

impl Refusal {
    pub(crate) fn new(site: &str, broken: impl Into<Vec<Broken>>) -> Self {
        let mut broken = broken.into();
        let more = broken.len().saturating_sub(MOST.0);
        broken.truncate(MOST.0);
        for Broken { reason, .. } in &mut broken {
            if let Some((end, _)) = reason.char_indices().nth(MOST.1) {
                reason.truncate(end);
                reason.push('…');
            }
        }
        if more > 0
            && let Some(last) = broken.last_mut()
        {
            last.reason.push_str(&format!(" (and {more} more)"));
        }
        Self { site: site.to_owned(), broken }
    }

    /// A refusal if any rule is broken.
    ///
    /// # Errors
    /// That refusal.
    pub(crate) fn unless_empty(site: &str, broken: Vec<Broken>) -> Result<(), Self> {
        if broken.is_empty() { Ok(()) } else { Err(Self::new(site, broken)) }
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        let site = &self.site;
        self.broken.iter().map(move |Broken { rule, reason }| format!("{site}: rule `{rule}`: {reason}"))
    }
}

impl From<Broken> for Vec<Broken> {
    fn from(broken: Broken) -> Self {
        vec![broken]
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().collect::<Vec<_>>().join("\n"))
    }
}
