//! The colours of the runs, and the legend.

use super::font::Type;
use super::svg::{Anchor, Area, INK, Pen, Svg};

/// The colours of Okabe and Ito, which people with any kind of colour vision can distinguish. Their yellow is left out:
/// it is too pale for a line on white.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// Once the colours run out, they repeat with the next dash pattern.
const DASHES: [&str; 4] = ["", "7 3", "2 2", "9 3 2 3"];

/// The length of the sample line before a name, and the gap around it.
const SAMPLE: f64 = 24.0;
const GAP: f64 = 6.0;
const SIGN: f64 = SAMPLE + GAP;
const BETWEEN: f64 = 3.0 * GAP;

/// The line height, relative to the font size.
const LINE: f64 = 1.2;

/// The colour of a run's index.
pub(super) fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}

/// The pen of a run's index; the first 28 differ.
pub(super) fn pen(number: usize, width: f64) -> Pen {
    let dash = DASHES[number / COLOURS.len() % DASHES.len()];
    Pen { dash, ..Pen::solid(colour(number), width) }
}

/// What is drawn before a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sample {
    Line,
    Box,
}

/// A legend with a position.
#[derive(Clone, Debug)]
pub(super) struct Legend {
    entries: Vec<Vec<String>>,
    /// The number of names that do not fit.
    left_out: usize,
    set: Type,
    sample: Sample,
    area: Area,
    columns: usize,
    column: f64,
    row: f64,
}

impl Legend {
    /// Places the names in an area and returns the legend and the rest of the area. Tries one line below, then the
    /// right side, then several lines below.
    pub(super) fn place(names: &[String], sample: Sample, set: Type, area: Area) -> (Self, Area) {
        let plain: Vec<Vec<String>> = names.iter().map(|name| vec![name.clone()]).collect();
        let row = set.size * 1.5;
        let empty = Self { entries: Vec::new(), left_out: 0, set, sample, area, columns: 1, column: 0.0, row };
        let column = widest(&plain, set) + BETWEEN;
        if column * names.len() as f64 <= area.width + BETWEEN {
            return Self { columns: names.len(), column, entries: plain, ..empty }.below();
        }
        empty.right(names).unwrap_or_else(|| empty.columns_below(names))
    }

    /// Places the legend on the right, if the area is large enough. Long names take two lines, or lose their middle.
    fn right(&self, names: &[String]) -> Option<(Self, Area)> {
        let Self { set, area, .. } = *self;
        let most = area.width * 0.3 - SIGN;
        let broken: Vec<Vec<String>> = names.iter().map(|name| set.lines(name, most)).collect();
        let elided = shortened(names, set, most);
        let lines = broken.iter().map(Vec::len).max().unwrap_or(1);
        let ways = [(broken, self.row + (lines - 1) as f64 * set.size * LINE), (elided, set.size * LINE)];
        let fits = |(entries, row): &(Vec<Vec<String>>, f64)| {
            area.width >= 440.0 && row * names.len() as f64 <= area.height && all_differ(entries)
        };
        let (entries, row) = ways.into_iter().find(fits)?;
        let width = widest(&entries, set);
        let right = Area { left: area.right() - width, width, ..area };
        Some((Self { entries, area: right, row, ..self.clone() }, area.inset(0.0, 0.0, width + 2.0 * GAP, 0.0)))
    }

    /// Places the legend below, in as many columns as fit complete names, or in more if the legend would be higher than
    /// half the area. Names that still do not fit are counted.
    fn columns_below(self, names: &[String]) -> (Self, Area) {
        let Self { set, area, .. } = self;
        let row = set.size * LINE;
        let rows = ((area.height * 0.5 / row) as usize).max(1);
        let most = ((area.width / 80.0) as usize).max(1);
        let whole: Vec<Vec<String>> = names.iter().map(|name| vec![name.clone()]).collect();
        let with_room = (area.width / (widest(&whole, set) + BETWEEN)) as usize;
        let columns = names.len().div_ceil(rows).max(with_room).clamp(1, most);
        let column = area.width / columns as f64;
        let room = column - SIGN - BETWEEN;
        let mut entries = shortened(names, set, room);
        let left_out = if entries.len() > rows * columns { entries.len() + 1 - rows * columns } else { 0 };
        entries.truncate(names.len() - left_out);
        Self { entries, left_out, columns, column, row, ..self }.below()
    }

    /// At the bottom of the area, as high as necessary.
    fn below(self) -> (Self, Area) {
        let area = self.area;
        let rows = (self.entries.len() + usize::from(self.left_out > 0)).div_ceil(self.columns.max(1));
        let height = self.row * rows as f64;
        let below = Area { top: area.bottom() - height, height, ..area };
        (Self { area: below, ..self }, area.inset(0.0, 0.0, 0.0, height + GAP))
    }

    pub(super) fn draw(&self, svg: &mut Svg) {
        let place = |index: usize| {
            let (row, column) = (index / self.columns, index % self.columns);
            (self.area.left + column as f64 * self.column, self.area.top + row as f64 * self.row)
        };
        let size = self.set.size;
        for (index, lines) in self.entries.iter().enumerate() {
            let (x, y) = place(index);
            let middle = y + size * 0.75;
            match self.sample {
                Sample::Line => svg.path([(x, middle), (x + SAMPLE, middle)], pen(index, 2.0)),
                Sample::Box => {
                    let side = size * 0.9;
                    let area = Area { left: x + SAMPLE - side, top: middle - side / 2.0, width: side, height: side };
                    svg.bar(area, colour(index));
                }
            }
            for (number, line) in lines.iter().enumerate() {
                let baseline = middle + size * 0.36 + number as f64 * size * LINE;
                svg.label((x + SAMPLE + GAP, baseline), line, self.set, INK, Anchor::Start, 0.0);
            }
        }
        if self.left_out > 0 {
            let (x, y) = place(self.entries.len());
            let text = format!("and {} more", self.left_out);
            svg.label((x, y + size * 1.11), &text, self.set, INK, Anchor::Start, 0.0);
        }
    }
}

/// The width of the widest entry, with its sample.
fn widest(entries: &[Vec<String>], set: Type) -> f64 {
    entries.iter().flatten().map(|line| set.width(line)).fold(0.0, f64::max) + SIGN
}

/// The names, elided in the middle if they are wider than `most`. If that makes two of them equal, their common prefix
/// is removed first.
fn shortened(names: &[String], set: Type, most: f64) -> Vec<Vec<String>> {
    let elided: Vec<Vec<String>> = names.iter().map(|name| vec![set.elided(name, most)]).collect();
    if all_differ(&elided) {
        return elided;
    }
    let same = |(a, b): &(char, char)| a == b;
    let in_common = |name: &String| name.chars().zip(names[0].chars()).take_while(same).count();
    let start = names.iter().map(in_common).min().unwrap_or(0);
    let rest = |name: &String| format!("…{}", name.chars().skip(start).collect::<String>());
    names.iter().map(|name| vec![set.elided(&rest(name), most)]).collect()
}

fn all_differ(entries: &[Vec<String>]) -> bool {
    entries.iter().collect::<std::collections::BTreeSet<_>>().len() == entries.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_runs_have_twenty_lines() {
        for a in 0..28 {
            for b in 0..a {
                assert_ne!((pen(a, 1.0).colour, pen(a, 1.0).dash), (pen(b, 1.0).colour, pen(b, 1.0).dash));
            }
        }
    }

    #[test]
    fn shortened_names_still_differ() {
        let names: Vec<String> =
            (0..20).map(|k| format!("fedavg_private_regressors_alpha_{k}_seed_{}", k % 3)).collect();
        let short = shortened(&names, Type::new(9.0), 60.0);
        assert!(all_differ(&short), "{short:?}");
        assert_eq!(short[7], ["…7_seed_1"]);
    }

    #[test]
    fn the_legend_never_stands_in_the_plot() {
        for (count, width, height) in [(1, 640.0, 420.0), (6, 640.0, 420.0), (20, 300.0, 200.0), (100, 200.0, 150.0)] {
            let names: Vec<String> = (0..count).map(|k| format!("a_run_with_a_rather_long_name_{k}")).collect();
            let area = Area { left: 0.0, top: 0.0, width, height };
            let (legend, rest) = Legend::place(&names, Sample::Line, Type::new(11.0), area);
            assert!(rest.right() < legend.area.left || rest.bottom() < legend.area.top, "{legend:?}");
            assert!(rest.width > width * 0.5 && rest.height > height * 0.4, "{rest:?}");
            assert!(legend.area.bottom() <= height + 0.01 && legend.area.right() <= width + 0.01, "{legend:?}");
        }
    }
}
