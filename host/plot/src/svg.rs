//! A minimal SVG writer for charts, with short numbers.

use std::fmt::{Display, Write as _};

use super::font::{FAMILY, Type};

/// The colour of titles and labels.
pub(super) const INK: &str = "#222222";
/// The colour of secondary text.
pub(super) const GREY: &str = "#666666";
/// The colour of grid lines.
pub(super) const GRID: &str = "#e4e4e4";

/// Whether a file was written by [`Svg::text`].
pub(super) fn is_ours(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    first.starts_with("<svg xmlns=") && first.ends_with(&format!("font-family=\"{FAMILY}\">"))
}

/// An axis-aligned rectangle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Area {
    pub(super) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(super) fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// The rectangle without a strip on each side.
    pub(super) fn inset(self, left: f64, top: f64, right: f64, bottom: f64) -> Self {
        Self {
            left: self.left + left,
            top: self.top + top,
            width: (self.width - left - right).max(1.0),
            height: (self.height - top - bottom).max(1.0),
        }
    }
}

/// Which part of a text is at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pen {
    pub(super) colour: &'static str,
    pub(super) width: f64,
    pub(super) dash: &'static str,
    pub(super) opacity: f64,
}

impl Pen {
    /// A solid line.
    pub(super) const fn solid(colour: &'static str, width: f64) -> Self {
        Self { colour, width, dash: "", opacity: 1.0 }
    }
}

/// A picture.
#[derive(Clone, Debug)]
pub struct Svg {
    size: Size,
    body: String,
    clips: usize,
}

/// The size of a picture in CSS pixels, of which 96 are an inch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The width in CSS pixels.
    pub width: u32,
    /// The height in CSS pixels.
    pub height: u32,
}

impl Size {
    /// The area of the whole picture.
    pub(super) fn area(self) -> Area {
        Area { left: 0.0, top: 0.0, width: f64::from(self.width), height: f64::from(self.height) }
    }
}

impl Svg {
    pub(super) fn new(size: Size) -> Self {
        Self { size, body: String::new(), clips: 0 }
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// The contents of the SVG file.
    pub(super) fn text(&self) -> String {
        let Size { width, height } = self.size;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"{FAMILY}\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.body
        )
    }

    /// Adds a text; `angle` rotates it around its position, in degrees clockwise.
    pub(super) fn label(
        &mut self,
        (x, y): (f64, f64),
        text: &str,
        set: Type,
        colour: &str,
        anchor: Anchor,
        angle: f64,
    ) {
        if text.is_empty() {
            return;
        }
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let weight = if set.bold { " font-weight=\"bold\"" } else { "" };
        let (x, y, size) = (Short(x), Short(y), Short(set.size));
        let turn = if angle == 0.0 { String::new() } else { format!(" transform=\"rotate({angle} {x} {y})\"") };
        let text = Escaped(text);
        self.line_of(format_args!(
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{colour}\"{weight}{anchor}{turn}>{text}</text>"
        ));
    }

    pub(super) fn bar(&mut self, area: Area, colour: &str) {
        let Area { left, top, width, height } = area;
        let (x, y, width, height) = (Short(left), Short(top), Short(width), Short(height));
        self.line_of(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{colour}\"/>"
        ));
    }

    /// Adds a line through these points. A single point is a dot.
    pub(super) fn path(&mut self, places: impl IntoIterator<Item = (f64, f64)>, pen: Pen) {
        let mut way = String::new();
        let mut before: Option<(i64, i64)> = None;
        for (x, y) in places {
            // In tenths, so that rounding errors of many short steps do not accumulate.
            let here = ((x * 10.0).round() as i64, (y * 10.0).round() as i64);
            let _ = match before {
                None => write!(way, "M{} {}", Tenths(here.0), Tenths(here.1)),
                Some(before) if before == here => Ok(()),
                Some(before) => {
                    let command = if way.contains('l') { ' ' } else { 'l' };
                    write!(way, "{command}{} {}", Tenths(here.0 - before.0), Tenths(here.1 - before.1))
                }
            };
            before = Some(here);
        }
        if before.is_none() {
            return;
        }
        if !way.contains('l') {
            way += "h0";
        }
        let Pen { colour, width, dash, opacity } = pen;
        let dash = if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dash}\"") };
        let opacity = if opacity < 1.0 { format!(" stroke-opacity=\"{opacity}\"") } else { String::new() };
        // A round cap would close the gaps of a dashed line, but a single point needs one to be a dot.
        let cap = if dash.is_empty() || way.ends_with("h0") { "round" } else { "butt" };
        let width = Short(width);
        self.line_of(format_args!(
            "<path d=\"{way}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-linejoin=\"round\" \
             stroke-linecap=\"{cap}\"{dash}{opacity}/>"
        ));
    }

    /// Adds a faint area with these corners.
    pub(super) fn band(&mut self, corners: impl IntoIterator<Item = (f64, f64)>, colour: &str) {
        let corners: Vec<String> = corners.into_iter().map(|(x, y)| format!("{},{}", Short(x), Short(y))).collect();
        if corners.len() > 2 {
            let corners = corners.join(" ");
            self.line_of(format_args!("<polygon points=\"{corners}\" fill=\"{colour}\" fill-opacity=\"0.15\"/>"));
        }
    }

    /// Runs `draw` with a clip at the edges of an area.
    pub(super) fn clipped(&mut self, area: Area, draw: impl FnOnce(&mut Self)) {
        self.clips += 1;
        let id = format!("plot{}", self.clips);
        self.line_of(format_args!("<clipPath id=\"{id}\">"));
        self.bar(area, "#000000");
        self.line_of(format_args!("</clipPath>\n<g clip-path=\"url(#{id})\">"));
        draw(self);
        self.line_of(format_args!("</g>"));
    }

    fn line_of(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.body, "{line}");
    }
}

/// A number with at most two decimals.
struct Short(f64);

impl Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{:.2}", self.0);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// A number of tenths.
struct Tenths(i64);

impl Display for Tenths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sign, size) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        match (size / 10, size % 10) {
            (whole, 0) => write!(f, "{sign}{whole}"),
            (0, tenth) => write!(f, "{sign}.{tenth}"),
            (whole, tenth) => write!(f, "{sign}{whole}.{tenth}"),
        }
    }
}

/// Text with markup escaped. Characters that XML cannot represent become the replacement character.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => f.write_char('\u{fffd}'),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let short = [1.0, 1.239, -0.5, 120.0, 0.0].map(|number| Short(number).to_string());
        assert_eq!(short, ["1", "1.24", "-0.5", "120", "0"]);
        assert_eq!([123, -5, 0, 40].map(|tenths| Tenths(tenths).to_string()), ["12.3", "-.5", "0", "4"]);
    }

    #[test]
    fn a_path_goes_in_short_steps_and_a_single_place_is_a_dot() {
        let mut svg = Svg::new(Size { width: 9, height: 9 });
        svg.path([(1.0, 1.0), (2.5, 1.0), (2.5, 1.04), (3.0, 0.0)], Pen::solid(INK, 1.0));
        svg.path([(4.0, 4.0)], Pen::solid(INK, 1.0));
        svg.path([], Pen::solid(INK, 1.0));
        assert!(svg.body.contains("d=\"M1 1l1.5 0 .5 -1\""), "{}", svg.body);
        assert!(svg.body.contains("d=\"M4 4h0\""), "{}", svg.body);
        assert_eq!(svg.body.lines().count(), 2);
    }

    #[test]
    fn texts_are_no_markup() {
        let mut svg = Svg::new(Size { width: 9, height: 9 });
        svg.label((0.0, 0.0), "a<b>&\u{1}", Type::new(9.0), INK, Anchor::End, 0.0);
        assert!(svg.text().contains(">a&lt;b&gt;&amp;\u{fffd}</text>"));
    }
}
