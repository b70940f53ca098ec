//! The frame of a plot: grid, ticks and axis names.

use super::font::Type;
use super::scale::Scale;
use super::svg::{Anchor, Area, GREY, GRID, INK, Pen, Svg};

/// The text sizes of a picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Texts {
    pub(super) title: Type,
    pub(super) name: Type,
    pub(super) tick: Type,
}

impl Texts {
    /// Small pictures get smaller text, to leave room for the data.
    pub(super) fn for_area(area: Area) -> Self {
        let part = (area.width.min(area.height * 1.5) / 480.0).clamp(0.8, 1.0);
        Self { title: Type::bold(15.0 * part), name: Type::new(12.5 * part), tick: Type::new(11.5 * part) }
    }
}

/// Draws the title and subtitle of a picture, if they are not empty, and returns the area that remains.
pub(super) fn head(svg: &mut Svg, whole: Area, (title, subtitle): (&str, &str)) -> Area {
    let texts = Texts::for_area(whole);
    let mut area = whole.inset(10.0, 10.0, 14.0, 8.0);
    for (text, set, colour) in [(title, texts.title, INK), (subtitle, texts.tick, GREY)] {
        if !text.is_empty() {
            let text = set.elided(text, area.width);
            svg.label((area.left, area.top + set.size), &text, set, colour, Anchor::Start, 0.0);
            area = area.inset(0.0, set.size * 1.45, 0.0, 0.0);
        }
    }
    area.inset(0.0, 5.0, 0.0, 0.0)
}

/// How many ticks fit on an axis of this length.
pub(super) fn ticks_for(length: f64, texts: Texts, across: bool) -> usize {
    let each = texts.tick.size * if across { 7.0 } else { 4.0 };
    ((length / each) as usize).clamp(2, 8)
}

/// The gap between the labels of an axis and their neighbours.
const GAP: f64 = 6.0;

/// How far the last label may extend beyond the plot.
const EDGE: f64 = 12.0;

/// The y axis.
pub(super) struct Upright<'a> {
    pub(super) scale: &'a Scale,
    /// Empty if a neighbouring plot already shows it.
    pub(super) name: &'a str,
}

impl Upright<'_> {
    /// The width of the labels.
    pub(super) fn labels_width(&self, texts: Texts) -> f64 {
        self.scale.ticks.iter().map(|tick| texts.tick.width(&tick.label)).fold(0.0, f64::max) + GAP
    }

    /// The width of a name.
    pub(super) fn name_width(texts: Texts) -> f64 {
        texts.name.size * 1.2 + GAP
    }

    /// Draws the grid behind the data, the labels, and the name, `room` to the left of the plot.
    pub(super) fn draw(&self, svg: &mut Svg, plot: Area, room: f64, texts: Texts) {
        for tick in &self.scale.ticks {
            let y = plot.bottom() - self.scale.position(tick.value) * plot.height;
            svg.path([(plot.left, y), (plot.right(), y)], Pen::solid(GRID, 1.0));
            let place = (plot.left - GAP, y + texts.tick.size * 0.36);
            svg.label(place, &tick.label, texts.tick, INK, Anchor::End, 0.0);
        }
        if !self.name.is_empty() {
            // A low plot gets a smaller name; a very low one also drops the unit.
            let set = Type::new(texts.name.size * (plot.height / texts.name.width(self.name)).clamp(0.8, 1.0));
            let most = plot.height + set.size;
            let without_unit = self.name.split(" (").next().unwrap_or_default();
            let name = if set.width(self.name) <= most { self.name } else { without_unit };
            let name = set.elided(name, most);
            let place = (plot.left - room + texts.name.size, plot.top + plot.height / 2.0);
            svg.label(place, &name, set, INK, Anchor::Middle, -90.0);
        }
    }
}

/// The x axis, with numbers.
pub(super) struct Level<'a> {
    pub(super) scale: &'a Scale,
    /// Empty if the plot below already shows it.
    pub(super) name: &'a str,
}

impl Level<'_> {
    /// The height of the labels.
    pub(super) fn labels_height(texts: Texts) -> f64 {
        texts.tick.size + GAP
    }

    /// The height of a name.
    pub(super) fn name_height(texts: Texts) -> f64 {
        texts.name.size * 1.3 + GAP
    }

    /// Draws the labels, the name, and the line below the data.
    pub(super) fn draw(&self, svg: &mut Svg, plot: Area, texts: Texts) {
        for tick in &self.scale.ticks {
            let x = plot.left + self.scale.position(tick.value) * plot.width;
            svg.path([(x, plot.bottom()), (x, plot.bottom() + 4.0)], Pen::solid(INK, 1.0));
            // Keeps the last label inside the picture.
            let x = x.min(plot.right() + EDGE - texts.tick.width(&tick.label) / 2.0);
            let place = (x, plot.bottom() + Self::labels_height(texts));
            svg.label(place, &tick.label, texts.tick, INK, Anchor::Middle, 0.0);
        }
        base_line(svg, plot);
        if !self.name.is_empty() {
            let below = Self::labels_height(texts) + Self::name_height(texts) - texts.name.size * 0.2;
            let place = (plot.left + plot.width / 2.0, plot.bottom() + below);
            svg.label(place, self.name, texts.name, INK, Anchor::Middle, 0.0);
        }
    }
}

/// The line below the data.
pub(super) fn base_line(svg: &mut Svg, plot: Area) {
    svg.path([(plot.left, plot.bottom()), (plot.right(), plot.bottom())], Pen::solid(INK, 1.0));
}
