//! The frame of a plot: grid, ticks and the axes' names.

use super::font::Type;
use super::scale::Scale;
use super::svg::{Anchor, Area, GREY, GRID, INK, Pen, Svg};

/// The sizes of a picture's texts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Texts {
    pub(super) title: Type,
    pub(super) name: Type,
    pub(super) tick: Type,
}

impl Texts {
    /// Smaller in a small picture, so that the data have room.
    pub(super) fn for_area(area: Area) -> Self {
        let part = (area.width.min(area.height * 1.5) / 480.0).clamp(0.8, 1.0);
        Self { title: Type::bold(15.0 * part), name: Type::new(12.5 * part), tick: Type::new(11.5 * part) }
    }
}

/// Draws a picture's title and what explains it, if they are not empty, and gives the area that is left of the whole.
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

/// How many ticks an axis of this length has room for.
pub(super) fn ticks_for(length: f64, texts: Texts, across: bool) -> usize {
    let each = texts.tick.size * if across { 7.0 } else { 4.0 };
    ((length / each) as usize).clamp(2, 8)
}

/// Between the labels of an axis and what is beside them.
const GAP: f64 = 6.0;

/// How far the last label may reach beyond the plot.
const EDGE: f64 = 12.0;

/// The axis from bottom to top.
pub(super) struct Upright<'a> {
    pub(super) scale: &'a Scale,
    /// Empty where the plot beside tells it already.
    pub(super) name: &'a str,
}

impl Upright<'_> {
    /// How much room the labels need.
    pub(super) fn labels_width(&self, texts: Texts) -> f64 {
        self.scale.ticks.iter().map(|tick| texts.tick.width(&tick.label)).fold(0.0, f64::max) + GAP
    }

    /// How much room a name needs.
    pub(super) fn name_width(texts: Texts) -> f64 {
        texts.name.size * 1.2 + GAP
    }

    /// Draws the grid behind the data, the labels, and the name as far away as there is room.
    pub(super) fn draw(&self, svg: &mut Svg, plot: Area, room: f64, texts: Texts) {
        for tick in &self.scale.ticks {
            let y = plot.bottom() - self.scale.position(tick.value) * plot.height;
            svg.path([(plot.left, y), (plot.right(), y)], Pen::solid(GRID, 1.0));
            let place = (plot.left - GAP, y + texts.tick.size * 0.36);
            svg.label(place, &tick.label, texts.tick, INK, Anchor::End, 0.0);
        }
        if !self.name.is_empty() {
            // In a low plot the name is smaller, and in a very low one it has no unit.
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

/// The axis from left to right, with numbers.
pub(super) struct Level<'a> {
    pub(super) scale: &'a Scale,
    /// Empty where the plot below tells it already.
    pub(super) name: &'a str,
}

impl Level<'_> {
    /// How much room labels need.
    pub(super) fn labels_height(texts: Texts) -> f64 {
        texts.tick.size + GAP
    }

    /// How much room a name needs.
    pub(super) fn name_height(texts: Texts) -> f64 {
        texts.name.size * 1.3 + GAP
    }

    /// Draws the labels and the name, and the line under the data.
    pub(super) fn draw(&self, svg: &mut Svg, plot: Area, texts: Texts) {
        for tick in &self.scale.ticks {
            let x = plot.left + self.scale.position(tick.value) * plot.width;
            svg.path([(x, plot.bottom()), (x, plot.bottom() + 4.0)], Pen::solid(INK, 1.0));
            // The last label does not leave the picture.
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

/// The line under the data.
pub(super) fn base_line(svg: &mut Svg, plot: Area) {
    svg.path([(plot.left, plot.bottom()), (plot.right(), plot.bottom())], Pen::solid(INK, 1.0));
}
