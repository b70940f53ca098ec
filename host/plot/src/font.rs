//! The embedded font of all pictures: measuring text and making it fit.
//!
//! Noto Sans is licensed under the SIL Open Font License 1.1, which permits embedding.

use std::sync::LazyLock;

use skrifa::instance::{LocationRef, Size};
use skrifa::metrics::GlyphMetrics;
use skrifa::{FontRef, MetadataProvider as _};

/// The font families that an SVG requests if Noto Sans is not installed; the alternatives have about the same widths.
pub(super) const FAMILY: &str = "Noto Sans, DejaVu Sans, Helvetica, Arial, sans-serif";

/// The font files for the renderer.
pub(super) const FACES: [&[u8]; 2] = [notosans::REGULAR_TTF, notosans::BOLD_TTF];

/// Font size and weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Type {
    pub(super) size: f64,
    pub(super) bold: bool,
}

impl Type {
    pub(super) const fn new(size: f64) -> Self {
        Self { size, bold: false }
    }

    pub(super) const fn bold(size: f64) -> Self {
        Self { size, bold: true }
    }

    /// The width of a text.
    pub(super) fn width(self, text: &str) -> f64 {
        static FONTS: LazyLock<[Option<FontRef<'static>>; 2]> =
            LazyLock::new(|| FACES.map(|face| FontRef::new(face).ok()));
        let Some(font) = &FONTS[usize::from(self.bold)] else { return text.chars().count() as f64 * self.size * 0.6 };
        let metrics = GlyphMetrics::new(font, Size::unscaled(), LocationRef::default());
        let em = f64::from(font.metrics(Size::unscaled(), LocationRef::default()).units_per_em);
        let map = font.charmap();
        let advance = |c| map.map(c).and_then(|glyph| metrics.advance_width(glyph));
        text.chars().map(|c| advance(c).map_or(0.6, |units| f64::from(units) / em)).sum::<f64>() * self.size
    }

    /// The text, with its middle replaced by `…` if it is wider than `most`, because names often differ at both ends.
    pub(super) fn elided(self, text: &str, most: f64) -> String {
        if self.width(text) <= most {
            return text.to_owned();
        }
        let chars: Vec<char> = text.chars().collect();
        let kept = |count: usize| {
            let (head, tail) = (count.div_ceil(2), count / 2);
            let ends = chars[..head].iter().chain(['…'].iter()).chain(&chars[chars.len() - tail..]);
            ends.collect::<String>()
        };
        let fits = (0..chars.len()).rev().map(kept).find(|short| self.width(short) <= most);
        fits.unwrap_or_else(|| "…".to_owned())
    }

    /// The text on one or two lines: broken after a space, `-`, `_`, `/` or `,` if it is wider than `most`, and elided
    /// if that is not enough.
    pub(super) fn lines(self, text: &str, most: f64) -> Vec<String> {
        if self.width(text) <= most {
            return vec![text.to_owned()];
        }
        let breaks = text.char_indices().filter(|(_, c)| " -_/,".contains(*c)).map(|(at, c)| at + c.len_utf8());
        let fits = |at: &usize| *at < text.len() && self.width(text[..*at].trim_end()) <= most;
        match breaks.rev().find(fits) {
            Some(at) => vec![text[..at].trim_end().to_owned(), self.elided(&text[at..], most)],
            None => vec![self.elided(text, most)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: Type = Type::new(12.0);

    #[test]
    fn the_font_knows_what_we_write() {
        for face in FACES {
            let font = FontRef::new(face).unwrap();
            for c in "aZ09…−αéЖ".chars() {
                assert!(font.charmap().map(c).is_some(), "{c}");
            }
        }
        assert!(TYPE.width("iii") < TYPE.width("mmm"));
        assert!(TYPE.width("mmm") < Type::bold(12.0).width("mmm"));
    }

    #[test]
    fn a_long_name_is_broken_or_loses_its_middle() {
        assert_eq!(TYPE.lines("fedavg", 100.0), ["fedavg"]);
        assert_eq!(TYPE.lines("fedavg_private_regressors", 100.0), ["fedavg_private_", "regressors"]);
        let short = TYPE.elided("abcdefghijklmnopqrstuvwxyz", 60.0);
        assert!(short.starts_with("abc") && short.ends_with("xyz") && TYPE.width(&short) <= 60.0, "{short}");
        assert_eq!(TYPE.elided("wide", 1.0), "…");
    }
}
