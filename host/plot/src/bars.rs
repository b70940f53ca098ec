//! Bar charts: counts of named things, with several kinds of bars stacked.

use super::axes::{Texts, Upright, base_line, head, ticks_for};
use super::font::Type;
use super::legend::{self, Legend, Sample};
use super::scale::{Scale, grouped};
use super::svg::{Anchor, Area, INK, Size, Svg};

/// The minimum width of a bar with its gap. Pictures with more bars are wider.
const LEAST: f64 = 17.0;

/// The maximum width of all bars together. Beyond it, bars become narrower and only some of their names are shown: a
/// picture of ten thousand full-width bars would take a gigabyte to draw and be unreadable.
const MOST: f64 = 200.0 * LEAST;

/// One kind of bars: a count for each place on the x axis.
#[derive(Clone, Debug)]
pub struct Kind {
    /// What is counted; the legend shows it if there are several kinds.
    pub name: String,
    /// The counts, in the order of the places.
    pub counts: Vec<usize>,
}

/// A picture of bars.
#[derive(Clone, Debug)]
pub struct Bars {
    /// The title, above the picture.
    pub title: String,
    /// The subtitle, below the title and smaller.
    pub subtitle: String,
    /// The name of the x axis.
    pub across: String,
    /// What is counted, with its unit: the name of the y axis.
    pub upright: String,
    /// The names on the x axis.
    pub places: Vec<String>,
    /// The kinds of bars, from bottom to top.
    pub kinds: Vec<Kind>,
}

impl Bars {
    /// Draws the picture, at least 640 CSS pixels wide.
    pub fn draw(&self) -> Svg {
        let extra = if self.kinds.len() > 1 { 220.0 } else { 90.0 };
        let size =
            Size { width: ((self.places.len() as f64 * LEAST).min(MOST) + extra).max(640.0) as u32, height: 420 };
        let mut svg = Svg::new(size);
        let texts = Texts::for_area(size.area());
        let mut area = head(&mut svg, size.area(), (&self.title, &self.subtitle));
        if self.kinds.len() > 1 {
            let names: Vec<String> = self.kinds.iter().map(|kind| kind.name.clone()).collect();
            let (legend, rest) = Legend::place(&names, Sample::Box, texts.tick, area);
            legend.draw(&mut svg);
            area = rest;
        }
        self.plot(&mut svg, area, texts);
        svg
    }

    /// The total height of each stack.
    fn totals(&self) -> Vec<usize> {
        let total = |place| self.kinds.iter().filter_map(|kind| kind.counts.get(place)).sum();
        (0..self.places.len()).map(total).collect()
    }

    fn plot(&self, svg: &mut Svg, area: Area, texts: Texts) {
        let totals = self.totals();
        let most = totals.iter().copied().max().unwrap_or(0).max(1) as f64;
        // Leaves room for a number above the highest bar.
        let scale = Scale::new(0.0, most * 1.09, ticks_for(area.height * 0.7, texts, false), true);
        let upright = Upright { scale: &scale, name: &self.upright };
        let left = upright.labels_width(texts) + Upright::name_width(texts);
        let slot = (area.width - left) / self.places.len().max(1) as f64;
        // Every how many bars a name is shown.
        let every = if slot < LEAST / 2.0 { (LEAST / slot).ceil() as usize } else { 1 };
        let names = Names::new(&self.places, texts.tick, slot * every as f64, area.height * 0.3);
        let plot = area.inset(left, 0.0, 0.0, names.height + texts.name.size * 1.3 + 8.0);
        upright.draw(svg, plot, left, texts);

        let width = (slot * 0.72).min(90.0);
        let height = |count: usize| scale.position(count as f64) * plot.height;
        for (index, &total) in totals.iter().enumerate() {
            let middle = plot.left + (index as f64 + 0.5) * slot;
            let mut top = plot.bottom();
            for (number, kind) in self.kinds.iter().enumerate() {
                let part = height(kind.counts.get(index).copied().unwrap_or(0));
                if part > 0.0 {
                    top -= part;
                    let area = Area { left: middle - width / 2.0, top, width, height: part };
                    svg.bar(area, legend::colour(number));
                }
            }
            if every == 1 {
                number(svg, (middle, top), &grouped(&total.to_string()), texts.tick, slot);
            }
            if index.is_multiple_of(every) {
                names.draw(svg, (middle, plot.bottom()), index);
            }
        }
        base_line(svg, plot);
        let place = (plot.left + plot.width / 2.0, area.bottom() - texts.name.size * 0.25);
        svg.label(place, &self.across, texts.name, INK, Anchor::Middle, 0.0);
    }
}

/// Writes a bar's number above it: horizontally, smaller, or rotated, whichever fits.
fn number(svg: &mut Svg, (x, top): (f64, f64), text: &str, set: Type, room: f64) {
    let small = Type::new(set.size * 0.8);
    match [set, small].into_iter().find(|set| set.width(text) <= room - 2.0) {
        Some(set) => svg.label((x, top - 4.0), text, set, INK, Anchor::Middle, 0.0),
        None => svg.label((x + small.size * 0.36, top - 4.0), text, small, INK, Anchor::Start, -90.0),
    }
}

/// The names below the bars: horizontal if all fit, otherwise rotated.
struct Names {
    names: Vec<String>,
    set: Type,
    angle: f64,
    height: f64,
}

impl Names {
    fn new(names: &[String], set: Type, slot: f64, most: f64) -> Self {
        let widest = |names: &[String]| names.iter().map(|name| set.width(name)).fold(0.0, f64::max);
        if widest(names) <= slot - 6.0 {
            return Self { names: names.to_vec(), set, angle: 0.0, height: set.size + 6.0 };
        }
        let angle: f64 = if slot > set.size * 2.5 { -40.0 } else { -90.0 };
        let slope = angle.to_radians().sin().abs();
        let names: Vec<String> = names.iter().map(|name| set.elided(name, most / slope)).collect();
        let height = widest(&names) * slope + set.size + 4.0;
        Self { names, set, angle, height }
    }

    fn draw(&self, svg: &mut Svg, (x, bottom): (f64, f64), index: usize) {
        let Self { names, set, angle, .. } = self;
        let (place, anchor) = if *angle == 0.0 {
            ((x, bottom + set.size + 4.0), Anchor::Middle)
        } else {
            ((x + set.size * 0.36, bottom + set.size * if *angle > -90.0 { 1.0 } else { 0.5 }), Anchor::End)
        };
        svg.label(place, &names[index], *set, INK, anchor, *angle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(clients: usize) -> Svg {
        let kind = Kind { name: "tm".to_owned(), counts: vec![3; clients] };
        let places = (1..=clients).map(|k| format!("site-{k}")).collect();
        let [title, subtitle, across, upright] = ["title", "", "client", "rows"].map(str::to_owned);
        Bars { title, subtitle, across, upright, places, kinds: vec![kind] }.draw()
    }

    #[test]
    fn thousands_of_bars_fit_a_picture_in_which_some_have_names() {
        let names = |svg: &Svg| svg.text().matches(">site-").count();
        let (few, many) = (picture(200), picture(10_000));
        assert_eq!((few.size().width, names(&few)), (3490, 200));
        assert_eq!((many.size().width, many.text().matches("<rect").count()), (3490, 10_001));
        assert!((100..=200).contains(&names(&many)), "{}", names(&many));
        assert!(many.text().contains(">site-1<"));
    }
}
