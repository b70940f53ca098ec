//! Line charts: one plot, or several side by side, with one legend.

use super::axes::{Level, Texts, Upright, ticks_for};
use super::curve::{self, Place};
use super::font::Type;
use super::legend::{self, Legend, Sample};
use super::scale::Scale;
use super::svg::{Anchor, Area, GREY, INK, Size, Svg};

/// How many places all curves of a picture may have together; a place takes about seven bytes.
const PLACES: usize = 24_000;

/// How faint the values stand behind their mean.
const FAINT: f64 = 0.25;

/// The curve of one run.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    /// The run's place among the names.
    pub(super) run: usize,
    pub(super) places: Vec<Place>,
}

/// One plot.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) across: String,
    pub(super) curves: Vec<Curve>,
}

/// A picture of line charts.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// Above all plots where there are several; empty for none.
    pub(super) title: String,
    /// Below the title, smaller.
    pub(super) subtitle: String,
    /// The name of the upright axes.
    pub(super) upright: String,
    /// Whether the numbers across are whole.
    pub(super) whole: bool,
    /// The runs' names.
    pub(super) names: Vec<String>,
    pub(super) panels: Vec<Panel>,
    /// Of how many values the mean is taken; 1 draws the values themselves.
    pub(super) window: usize,
}

/// How many plots stand side by side.
pub(super) fn columns(panels: usize) -> usize {
    match panels {
        0..=3 => panels.max(1),
        4 => 2,
        5..=9 => 3,
        _ => 4,
    }
}

/// A plot with its scales.
struct Scaled<'a> {
    panel: &'a Panel,
    /// Each curve: what is drawn faint, if anything, and what is drawn strong.
    drawn: Vec<(usize, Option<Vec<Place>>, Vec<Place>)>,
    across: Scale,
    upright: Scale,
}

impl Chart {
    /// Draws it.
    pub(super) fn draw(&self, size: Size) -> Svg {
        let mut svg = Svg::new(size);
        let columns = columns(self.panels.len());
        let rows = self.panels.len().div_ceil(columns).max(1);
        let whole = size.area();
        let texts = Texts::for_area(Area { width: whole.width / columns as f64 * 1.3, ..whole });
        let area = whole.inset(10.0, 10.0, 14.0, 8.0);
        let area = self.head(&mut svg, area, Texts::for_area(whole));
        let (legend, area) = Legend::place(&self.names, Sample::Line, Type::new(texts.tick.size), area);
        legend.draw(&mut svg);

        // The names of axes that stand in line are written once: left of the first column, below the last row.
        let ends =
            |index: usize| self.panels.get(index + columns).is_none_or(|p| p.across != self.panels[index].across);
        let inner = (0..self.panels.len().saturating_sub(columns)).any(ends);
        let name_height = Level::name_height(texts);
        let (gap, below) = (14.0, if inner { name_height } else { 0.0 });
        let area = area.inset(Upright::name_width(texts), 0.0, 0.0, if inner { 0.0 } else { name_height });
        let cell = Area {
            width: (area.width - gap * (columns - 1) as f64) / columns as f64,
            height: (area.height - gap * (rows - 1) as f64) / rows as f64,
            ..area
        };
        let scaled: Vec<Scaled<'_>> = self.panels.iter().map(|panel| self.scaled(panel, cell, texts)).collect();
        let labels = |scaled: &Scaled<'_>| Upright { scale: &scaled.upright, name: "" }.labels_width(texts);
        let margin = scaled.iter().map(labels).fold(0.0, f64::max);
        // Plots of one picture have one size and one place in their cells.
        let (top, bottom) = (
            if self.panels.iter().all(|panel| panel.title.is_empty()) { 2.0 } else { texts.name.size * 1.5 },
            below + Level::labels_height(texts),
        );
        for (index, plot) in scaled.iter().enumerate() {
            let (row, column) = (index / columns, index % columns);
            let left = area.left + column as f64 * (cell.width + gap);
            let above = area.top + row as f64 * (cell.height + gap);
            let upright = if column == 0 { self.upright.as_str() } else { "" };
            let across = if ends(index) { plot.panel.across.as_str() } else { "" };
            let area = Area { left, top: above, ..cell }.inset(margin, top, 2.0, bottom);
            Upright { scale: &plot.upright, name: upright }.draw(
                &mut svg,
                area,
                margin + Upright::name_width(texts),
                texts,
            );
            Level { scale: &plot.across, name: across }.draw(&mut svg, area, texts);
            let title = Type::bold(texts.name.size);
            let place = (area.left, above + title.size);
            svg.label(place, &title.elided(&plot.panel.title, area.width), title, INK, Anchor::Start, 0.0);
            self.curves(&mut svg, plot, area, texts);
        }
        svg
    }

    /// Draws the title and what stands below it, and gives what is left.
    fn head(&self, svg: &mut Svg, mut area: Area, texts: Texts) -> Area {
        let small = Type::new(texts.tick.size);
        for (text, set, colour) in [(&self.title, texts.title, INK), (&self.subtitle, small, GREY)] {
            if !text.is_empty() {
                let text = set.elided(text, area.width);
                svg.label((area.left, area.top + set.size), &text, set, colour, Anchor::Start, 0.0);
                area = area.inset(0.0, set.size * 1.45, 0.0, 0.0);
            }
        }
        area.inset(0.0, 4.0, 0.0, 0.0)
    }

    fn scaled<'a>(&self, panel: &'a Panel, cell: Area, texts: Texts) -> Scaled<'a> {
        let drawn: Vec<_> = panel.curves.iter().map(|curve| self.smoothed(curve)).collect();
        let strong = drawn.iter().flat_map(|(_, _, strong)| strong);
        let faint = drawn.iter().filter_map(|(_, faint, _)| faint.as_ref());
        let across = curve::range(strong.clone().map(|place| place.0)).unwrap_or((0.0, 1.0));
        // Single values far out do not press all else together; the means are always whole.
        let ranges = faint.map(|places| curve::common_range(places.iter().map(|place| place.1)));
        let ranges = ranges.chain([curve::range(strong.map(|place| place.1))]).flatten();
        let upright = curve::range(ranges.flat_map(|(low, high)| [low, high])).unwrap_or((0.0, 1.0));
        Scaled {
            panel,
            drawn,
            across: Scale::around(across.0, across.1, 0.02, ticks_for(cell.width * 0.8, texts, true), self.whole),
            upright: Scale::around(upright.0, upright.1, 0.05, ticks_for(cell.height * 0.7, texts, false), false),
        }
    }

    fn smoothed(&self, curve: &Curve) -> (usize, Option<Vec<Place>>, Vec<Place>) {
        if self.window < 2 {
            return (curve.run, None, curve.places.clone());
        }
        let values: Vec<f64> = curve.places.iter().map(|place| place.1).collect();
        let means = curve::moving_average(&values, self.window);
        let strong = curve.places.iter().zip(means).map(|(place, mean)| (place.0, mean)).collect();
        (curve.run, Some(curve.places.clone()), strong)
    }

    fn curves(&self, svg: &mut Svg, plot: &Scaled<'_>, area: Area, texts: Texts) {
        if plot.drawn.iter().all(|(_, _, strong)| curve::pieces(strong).next().is_none()) {
            let middle = (area.left + area.width / 2.0, area.top + area.height / 2.0);
            svg.label(middle, "no finite values", texts.tick, GREY, Anchor::Middle, 0.0);
        }
        let curves = self.panels.iter().map(|panel| panel.curves.len()).sum::<usize>().max(1);
        let each = PLACES / curves / if self.window < 2 { 2 } else { 4 };
        let columns = (area.width as usize).clamp(1, each.max(20));
        let on_paper = |&(x, y): &Place| {
            let (x, y) = (plot.across.position(x), plot.upright.position(y));
            // Far outside is as good as outside, and keeps the numbers short.
            (area.left + x * area.width, area.bottom() - y.clamp(-2.0, 3.0) * area.height)
        };
        svg.clipped(area.inset(0.0, -2.0, 0.0, -2.0), |svg| {
            for (run, faint, _) in &plot.drawn {
                let pen = legend::pen(*run, 1.0);
                for piece in faint.iter().flat_map(|places| curve::pieces(places)) {
                    let thinned = curve::thin(piece, columns);
                    svg.path(thinned.iter().map(on_paper), super::svg::Pen { opacity: FAINT, dash: "", ..pen });
                }
            }
            for (run, _, strong) in &plot.drawn {
                for piece in curve::pieces(strong) {
                    let width = if piece.len() == 1 { 4.0 } else { 1.8 };
                    svg.path(curve::thin(piece, columns).iter().map(on_paper), legend::pen(*run, width));
                }
            }
        });
    }
}
