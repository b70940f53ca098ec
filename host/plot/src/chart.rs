//! Line charts: one plot, or several side by side with one legend.

use super::axes::{Level, Texts, Upright, head, ticks_for};
use super::curve::{self, Place};
use super::font::Type;
use super::legend::{self, Legend, Sample};
use super::scale::Scale;
use super::svg::{Anchor, Area, GREY, INK, Size, Svg};

/// How many points all curves of a picture may have together. A point takes about seven bytes.
const PLACES: usize = 24_000;

/// The opacity of the values behind their mean.
const FAINT: f64 = 0.25;

/// The curve of one run.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    /// The index of the run in the list of names.
    pub(super) run: usize,
    pub(super) places: Vec<Place>,
    /// For each place the standard deviation over repeats, if the curve is their mean.
    pub(super) deviations: Option<Vec<f64>>,
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
    /// Above all plots if there are several; empty for none.
    pub(super) title: String,
    /// The subtitle, below the title and smaller.
    pub(super) subtitle: String,
    /// The name of the y axes.
    pub(super) upright: String,
    /// Whether the numbers on the x axis are integers.
    pub(super) whole: bool,
    /// The runs' names.
    pub(super) names: Vec<String>,
    pub(super) panels: Vec<Panel>,
    /// The number of values in the moving average; 1 draws the values themselves.
    pub(super) window: usize,
}

/// How many plots share a row.
pub(super) fn columns(panels: usize) -> usize {
    match panels {
        0..=3 => panels.max(1),
        4 => 2,
        5..=9 => 3,
        _ => 4,
    }
}

/// The layout of the plots. Aligned axes share one name: the y axes left of the first column, an x axis below the
/// lowest plot that has it.
struct Grid {
    columns: usize,
    /// The first plot with its tick labels, without axis names.
    first: Area,
    /// The offset from one plot to the next, in x and y.
    step: (f64, f64),
    /// Which plots have the name of the x axis below them.
    named: Vec<bool>,
}

impl Grid {
    const GAP: f64 = 14.0;

    fn new(panels: &[Panel], area: Area, texts: Texts) -> Self {
        let columns = columns(panels.len());
        let rows = panels.len().div_ceil(columns).max(1);
        let like_below =
            |(index, panel): (usize, &Panel)| panels.get(index + columns).is_some_and(|p| p.across == panel.across);
        let named: Vec<bool> = panels.iter().enumerate().map(|place| !like_below(place)).collect();
        let between = named[..panels.len().saturating_sub(columns)].contains(&true);
        let name = Level::name_height(texts);
        let down = Self::GAP + if between { name } else { 0.0 };
        let area = area.inset(Upright::name_width(texts), 0.0, 0.0, name);
        let width = (area.width - Self::GAP * (columns - 1) as f64) / columns as f64;
        let height = (area.height - down * (rows - 1) as f64) / rows as f64;
        Self { columns, first: Area { width, height, ..area }, step: (width + Self::GAP, height + down), named }
    }

    fn cell(&self, index: usize) -> Area {
        let (row, column) = (index / self.columns, index % self.columns);
        let (left, top) = (column as f64 * self.step.0, row as f64 * self.step.1);
        Area { left: self.first.left + left, top: self.first.top + top, ..self.first }
    }
}

/// A curve as it is drawn.
struct Drawn {
    run: usize,
    /// The line.
    strong: Vec<Place>,
    /// What is behind it.
    behind: Behind,
}

/// What is faintly behind a curve.
enum Behind {
    Nothing,
    /// The values of which the curve is a moving average.
    Values(Vec<Place>),
    /// The lower and the upper edge of a band.
    Band(Vec<Place>, Vec<Place>),
}

impl Behind {
    fn places(&self) -> Option<Vec<Place>> {
        match self {
            Self::Nothing => None,
            Self::Values(values) => Some(values.clone()),
            Self::Band(low, high) => Some([&low[..], high].concat()),
        }
    }
}

/// A plot with its scales.
struct Scaled<'a> {
    panel: &'a Panel,
    drawn: Vec<Drawn>,
    across: Scale,
    upright: Scale,
}

impl Chart {
    /// Draws it.
    pub(super) fn draw(&self, size: Size) -> Svg {
        let mut svg = Svg::new(size);
        let whole = size.area();
        let area = head(&mut svg, whole, (&self.title, &self.subtitle));
        let texts = Texts::for_area(Area { width: whole.width / columns(self.panels.len()) as f64 * 1.3, ..whole });
        let (legend, area) = Legend::place(&self.names, Sample::Line, texts.tick, area);
        legend.draw(&mut svg);

        let grid = Grid::new(&self.panels, area, texts);
        let plots: Vec<Scaled<'_>> = self.panels.iter().map(|panel| self.scaled(panel, grid.first, texts)).collect();
        // All plots have the same size and the same position in their cells.
        let labels = |plot: &Scaled<'_>| Upright { scale: &plot.upright, name: "" }.labels_width(texts);
        let left = plots.iter().map(labels).fold(0.0, f64::max);
        let title = Type::bold(texts.name.size);
        let top = if self.panels.iter().all(|panel| panel.title.is_empty()) { 2.0 } else { title.size * 1.5 };
        for (index, plot) in plots.iter().enumerate() {
            let cell = grid.cell(index);
            let area = cell.inset(left, top, 2.0, Level::labels_height(texts));
            let first = index.is_multiple_of(grid.columns);
            let upright = Upright { scale: &plot.upright, name: if first { &self.upright } else { "" } };
            upright.draw(&mut svg, area, left + Upright::name_width(texts), texts);
            let across = Level { scale: &plot.across, name: if grid.named[index] { &plot.panel.across } else { "" } };
            across.draw(&mut svg, area, texts);
            let name = title.elided(&plot.panel.title, area.width);
            svg.label((area.left, cell.top + title.size), &name, title, INK, Anchor::Start, 0.0);
            self.curves(&mut svg, plot, area, texts);
        }
        svg
    }

    fn scaled<'a>(&self, panel: &'a Panel, cell: Area, texts: Texts) -> Scaled<'a> {
        let drawn: Vec<_> = panel.curves.iter().map(|curve| self.smoothed(curve)).collect();
        let strong = drawn.iter().flat_map(|drawn| &drawn.strong);
        let faint = drawn.iter().filter_map(|drawn| drawn.behind.places());
        let across = curve::range(strong.clone().map(|place| place.0)).unwrap_or((0.0, 1.0));
        // Single outliers do not compress the rest; the means are always shown completely.
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

    fn smoothed(&self, curve: &Curve) -> Drawn {
        let smooth =
            |values: Vec<f64>| if self.window < 2 { values } else { curve::moving_average(&values, self.window) };
        let at_places =
            |values: Vec<f64>| curve.places.iter().zip(values).map(|(place, value)| (place.0, value)).collect();
        let means = smooth(curve.places.iter().map(|place| place.1).collect());
        let behind = match &curve.deviations {
            Some(deviations) => {
                let deviations = smooth(deviations.clone());
                let edge = |sign: f64| at_places(means.iter().zip(&deviations).map(|(m, sd)| m + sign * sd).collect());
                Behind::Band(edge(-1.0), edge(1.0))
            }
            None if self.window < 2 => Behind::Nothing,
            None => Behind::Values(curve.places.clone()),
        };
        Drawn { run: curve.run, strong: at_places(means), behind }
    }

    fn curves(&self, svg: &mut Svg, plot: &Scaled<'_>, area: Area, texts: Texts) {
        if plot.drawn.iter().all(|drawn| curve::pieces(&drawn.strong).next().is_none()) {
            let middle = (area.left + area.width / 2.0, area.top + area.height / 2.0 - 4.0);
            svg.label(middle, "no finite values", texts.tick, GREY, Anchor::Middle, 0.0);
        }
        let curves = self.panels.iter().map(|panel| panel.curves.len()).sum::<usize>().max(1);
        let each = PLACES / curves / if self.window < 2 { 2 } else { 4 };
        let columns = (area.width as usize).clamp(1, each.max(20));
        let on_paper = |&(x, y): &Place| {
            let (x, y) = (plot.across.position(x), plot.upright.position(y));
            // Clamped: far outside looks the same as just outside, and the numbers stay short.
            (area.left + x * area.width, area.bottom() - y.clamp(-2.0, 3.0) * area.height)
        };
        svg.clipped(area.inset(0.0, -2.0, 0.0, -2.0), |svg| {
            for Drawn { run, behind, .. } in &plot.drawn {
                let pen = legend::pen(*run, 1.0);
                match behind {
                    Behind::Nothing => {}
                    Behind::Values(values) => {
                        for piece in curve::pieces(values) {
                            let thinned = curve::thin(piece, columns);
                            svg.path(thinned.iter().map(on_paper), super::svg::Pen { opacity: FAINT, dash: "", ..pen });
                        }
                    }
                    Behind::Band(low, high) => {
                        for (low, high) in curve::pieces(low).zip(curve::pieces(high)) {
                            let (low, high) = (curve::thin(low, columns), curve::thin(high, columns));
                            svg.band(high.iter().chain(low.iter().rev()).map(on_paper), pen.colour);
                        }
                    }
                }
            }
            for Drawn { run, strong, .. } in &plot.drawn {
                for piece in curve::pieces(strong) {
                    let width = if piece.len() == 1 { 4.0 } else { 1.8 };
                    svg.path(curve::thin(piece, columns).iter().map(on_paper), legend::pen(*run, width));
                }
            }
        });
    }
}
