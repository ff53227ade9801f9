//! Drawings for pages: charts as SVG whose colours follow the page's theme. Shared by the page of a run
//! ([`page`](super::page)) and whoever else makes pages, as `bench report` does.
//!
//! `plotters` draws with fixed tokens for colours, and [`STYLE`], which a page puts into its style sheet once, maps each
//! token to a custom property that light and dark themes set. A chart is drawn for one width in pixels; [`figure`]
//! draws it for a desktop and for a phone, of which the page's style shows the one that fits, so that text stays
//! readable on both. There are no scripts.

use std::ops::Range;

use maud::{Markup, PreEscaped, html};
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Tokens of the series, in the order in which they are handed out.
const SERIES: [RGBColor; 6] = [
    RGBColor(1, 1, 241),
    RGBColor(1, 1, 242),
    RGBColor(1, 1, 243),
    RGBColor(1, 1, 244),
    RGBColor(1, 1, 245),
    RGBColor(1, 1, 246),
];
/// Tokens of text, of axes and of the grid.
const TEXT: RGBColor = RGBColor(1, 1, 247);
const AXIS: RGBColor = RGBColor(1, 1, 248);
const GRID: RGBColor = RGBColor(1, 1, 249);

/// The rules that a page needs for its charts. Themes set `--c1` to `--c6` for the series, `--ink-2`, `--axis` and
/// `--grid`.
pub const STYLE: &str = "
.plot svg{width:100%;height:auto;display:block}
.plot .narrow{display:none}
.plot text{font-family:inherit}
.plot rect{shape-rendering:crispEdges}
.plot [stroke='#0101F1']{stroke:var(--c1)}.plot [fill='#0101F1']{fill:var(--c1)}
.plot [stroke='#0101F2']{stroke:var(--c2)}.plot [fill='#0101F2']{fill:var(--c2)}
.plot [stroke='#0101F3']{stroke:var(--c3)}.plot [fill='#0101F3']{fill:var(--c3)}
.plot [stroke='#0101F4']{stroke:var(--c4)}.plot [fill='#0101F4']{fill:var(--c4)}
.plot [stroke='#0101F5']{stroke:var(--c5)}.plot [fill='#0101F5']{fill:var(--c5)}
.plot [stroke='#0101F6']{stroke:var(--c6)}.plot [fill='#0101F6']{fill:var(--c6)}
.plot [stroke='#0101F7']{stroke:var(--ink-2)}.plot [fill='#0101F7']{fill:var(--ink-2)}
.plot [stroke='#0101F8']{stroke:var(--axis)}.plot [stroke='#0101F9']{stroke:var(--grid)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.1rem 0 .3rem;font-size:.8rem;color:var(--ink-2)}
.legend i{display:inline-block;width:.9rem;height:.2rem;border-radius:.1rem;margin-right:.4rem;vertical-align:middle}
.s1{background:var(--c1)}.s2{background:var(--c2)}.s3{background:var(--c3)}
.s4{background:var(--c4)}.s5{background:var(--c5)}.s6{background:var(--c6)}
@media (max-width:640px){.plot .wide{display:none}.plot .narrow{display:block}}
@media print{.plot .wide{display:block}.plot .narrow{display:none}}
";

/// Width and height of a chart on a desktop, beside another one.
pub const HALF: [u32; 2] = [520, 240];
/// Width and height of a chart on a desktop over the whole page.
pub const WHOLE: [u32; 2] = [900, 230];
/// Width of any chart on a phone.
const NARROW: u32 = 350;

/// Colours are told apart by number, from 0; beyond six they repeat.
fn series(number: usize) -> RGBColor {
    SERIES[number % SERIES.len()]
}

/// A curve of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend; without one it is not there.
    pub name: String,
    /// Its points in order of x.
    pub points: Vec<(f64, f64)>,
    /// The number of its colour, from 0.
    pub colour: usize,
    /// How it is drawn.
    pub stroke: Stroke,
}

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// A line.
    Line,
    /// A pale line, under others.
    Faint,
    /// A line with a dot on each point.
    Dots,
}

/// What numbers on an axis are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Plain numbers.
    Number,
    /// Shares, shown in percent.
    Share,
    /// Times in seconds.
    Seconds,
}

impl Unit {
    /// A number on an axis, short.
    pub fn label(self, x: f64) -> String {
        match self {
            Unit::Number => short(x),
            Unit::Share => format!("{} %", short(100.0 * x)),
            Unit::Seconds if x >= 7200.0 => format!("{} h", short(x / 3600.0)),
            Unit::Seconds if x >= 120.0 => format!("{} min", short(x / 60.0)),
            Unit::Seconds => format!("{} s", short(x)),
        }
    }
}

/// A number in at most four digits or so: `0.0012`, `12.5`, `45k`.
pub fn short(x: f64) -> String {
    let size = x.abs();
    let trimmed = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    };
    match size {
        _ if size < 1e-12 => "0".into(),
        _ if size < 1e-3 => format!("{x:.0e}"),
        _ if size < 1.0 => trimmed(format!("{x:.4}")),
        _ if size < 100.0 => trimmed(format!("{x:.2}")),
        _ if size < 10_000.0 => trimmed(format!("{x:.1}")),
        _ if size < 1e6 => format!("{}k", trimmed(format!("{:.1}", x / 1e3))),
        _ if size < 1e9 => format!("{}M", trimmed(format!("{:.1}", x / 1e6))),
        _ => format!("{x:.1e}"),
    }
}

/// Ratio of largest to smallest below which a logarithmic axis would have too few marks to read.
const LOG_FROM: f64 = 50.0;

/// Curves over one axis.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it shows, for those who cannot see it.
    pub title: String,
    /// What x is.
    pub x_unit: Unit,
    /// Its name under the axis.
    pub x_label: String,
    /// What y is.
    pub y_unit: Unit,
    /// Whether y is on a logarithmic scale, which it only is if all of it is above 0 and spans some powers of ten.
    pub log: bool,
    /// Whether y begins at 0.
    pub from_zero: bool,
    /// The curves; the first ones lie under the others.
    pub lines: Vec<Line>,
}

impl Chart {
    /// Whether no curve has a point.
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.points.is_empty())
    }

    /// The chart as SVG of so many pixels.
    pub fn svg(&self, [width, height]: [u32; 2]) -> String {
        let [x, y] = [self.span(|p| p.0), self.span(|p| p.1)];
        let y_low = if self.from_zero { y.start.min(0.0) } else { y.start };
        draw([width, height], |area| {
            if self.log && y.start > 0.0 && y.end > LOG_FROM * y.start {
                let y = (y.start * 0.9..y.end * 1.1).log_scale();
                self.draw(area, width, x.clone(), y)
            } else {
                let room = (y.end - y_low) * 0.05;
                let low = if self.from_zero && y_low == 0.0 { 0.0 } else { y_low - room };
                let y: RangedCoordf64 = (low..y.end + room).into();
                self.draw(area, width, x.clone(), y)
            }
        })
    }

    /// Smallest and largest of all points, a little apart.
    fn span(&self, of: impl Fn(&(f64, f64)) -> f64) -> Range<f64> {
        let all = self.lines.iter().flat_map(|line| &line.points).map(of);
        let (low, high) =
            all.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        match low.is_finite() && high.is_finite() {
            true if high - low > high.abs().max(low.abs()) * 1e-9 => low..high,
            true if low == 0.0 => 0.0..1.0,
            true => low - low.abs() * 0.1..high + high.abs() * 0.1,
            false => 0.0..1.0,
        }
    }

    fn draw<Y>(&self, area: &Area<'_>, width: u32, x: Range<f64>, y: Y) -> Drawn
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
        <Y::CoordDescType as Ranged>::FormatOption: Sized,
    {
        let mut chart = ChartBuilder::on(area)
            .margin_right(14)
            .margin_top(8)
            .x_label_area_size(42)
            .y_label_area_size(56)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_labels((width / 90) as usize)
            .y_labels(5)
            .disable_x_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(AXIS)
            .label_style(font(14))
            .axis_desc_style(font(14))
            .x_desc(&self.x_label)
            .x_label_formatter(&|x| self.x_unit.label(*x))
            .y_label_formatter(&|y| self.y_unit.label(*y))
            .draw()?;
        for line in &self.lines {
            let colour = series(line.colour);
            let (mix, stroke) = match line.stroke {
                Stroke::Faint => (0.3, 1),
                Stroke::Line | Stroke::Dots => (1.0, 2),
            };
            let style = colour.mix(mix).stroke_width(stroke);
            let points = || line.points.iter().copied();
            chart.draw_series(LineSeries::new(points(), style))?;
            if line.stroke == Stroke::Dots || line.points.len() == 1 {
                let dot = |point| Circle::new(point, 3, colour.filled());
                chart.draw_series(points().map(dot))?;
            }
        }
        Ok(())
    }

    /// The chart for desktop and phone, with a legend above it where there is more than one curve with a name.
    pub fn figure(&self, size: [u32; 2]) -> Markup {
        let named: Vec<_> = self.lines.iter().filter(|line| !line.name.is_empty()).collect();
        let named = if named.len() > 1 { named } else { Vec::new() };
        let legend = named.iter().map(|line| (line.name.as_str(), line.colour));
        figure(&self.title, &legend.collect::<Vec<_>>(), size, |size| self.svg(size))
    }
}

/// Rows of cells over time, each as dark as its value from 0 to 1: what was busy when.
#[derive(Clone, Debug)]
pub struct Strips {
    /// What it shows, for those who cannot see it.
    pub title: String,
    /// Where each column of cells ends, from the start of the first one; in seconds.
    pub edges: Vec<f64>,
    /// Where the first column begins.
    pub start: f64,
    /// Name, number of the colour, and a value for each column.
    pub rows: Vec<(String, usize, Vec<f64>)>,
}

impl Strips {
    /// The strips as SVG of so many pixels.
    pub fn svg(&self, [width, height]: [u32; 2]) -> String {
        let end = self.edges.last().copied().unwrap_or(1.0).max(self.start + 1e-9);
        let rows = self.rows.len() as f64;
        draw([width, height], |area| {
            let mut chart = ChartBuilder::on(area)
                .margin_right(14)
                .margin_top(4)
                .x_label_area_size(24)
                .y_label_area_size(64)
                .build_cartesian_2d(self.start..end, 0.0..rows)?;
            chart
                .configure_mesh()
                .disable_mesh()
                .disable_y_axis()
                .x_labels((width / 90) as usize)
                .axis_style(AXIS)
                .label_style(font(14))
                .x_label_formatter(&|x| Unit::Seconds.label(*x))
                .draw()?;
            for (at, (_, colour, values)) in (0..).zip(&self.rows) {
                let top = rows - f64::from(at);
                let starts = std::iter::once(&self.start).chain(&self.edges);
                let cells = starts.zip(&self.edges).zip(values).map(|((&from, &to), &value)| {
                    let style = series(*colour).mix(0.06 + 0.94 * value.clamp(0.0, 1.0)).filled();
                    Rectangle::new([(from, top - 0.12), (to, top - 0.88)], style)
                });
                chart.draw_series(cells)?;
            }
            let style = font(14).pos(Pos::new(HPos::Right, VPos::Center));
            let plotting = chart.plotting_area().get_pixel_range();
            for (at, (name, ..)) in (0..).zip(&self.rows) {
                let row = f64::from(plotting.1.end - plotting.1.start) / rows;
                let y = f64::from(plotting.1.start) + row * (f64::from(at) + 0.5);
                area.draw_text(name, &style, (plotting.0.start - 8, y as i32))?;
            }
            Ok(())
        })
    }

    /// The strips for desktop and phone.
    pub fn figure(&self, size: [u32; 2]) -> Markup {
        figure(&self.title, &[], size, |size| self.svg(size))
    }
}

/// Horizontal bars with a name before and a text behind each; with whiskers where there is an interval.
#[derive(Clone, Debug)]
pub struct Bars {
    /// What it shows, for those who cannot see it.
    pub title: String,
    /// The bars, from above.
    pub bars: Vec<Bar>,
    /// Pixels for the names.
    pub names_width: u32,
}

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Its name.
    pub name: String,
    /// Its length.
    pub value: f64,
    /// Lowest and highest, where it is not one number.
    pub interval: Option<(f64, f64)>,
    /// What stands behind it.
    pub text: String,
    /// The number of its colour.
    pub colour: usize,
}

/// Pixels of a bar with the room around it.
const BAR_HEIGHT: u32 = 26;
/// Pixels for the text behind a bar.
const BAR_TEXT: u32 = 110;

impl Bars {
    /// The bars as SVG of so many pixels; their number gives the height.
    pub fn svg(&self, width: u32) -> String {
        let count = self.bars.len() as f64;
        let ends = self.bars.iter().map(|bar| bar.interval.map_or(bar.value, |i| i.1));
        let longest = ends.filter(|x| x.is_finite()).fold(0.0, f64::max).max(1e-12);
        draw([width, BAR_HEIGHT * self.bars.len() as u32 + 4], |area| {
            let names = self.names_width.min(width / 2);
            let mut chart = ChartBuilder::on(area)
                .margin(2)
                .margin_right(BAR_TEXT)
                .y_label_area_size(names)
                .build_cartesian_2d(0.0..longest, 0.0..count)?;
            let placed = || (0..).zip(&self.bars).map(|(at, bar)| (count - f64::from(at), bar));
            chart.draw_series(placed().map(|(top, bar)| {
                let value = if bar.value.is_finite() { bar.value.max(0.0) } else { 0.0 };
                let style = series(bar.colour).mix(0.85).filled();
                Rectangle::new([(0.0, top - 0.18), (value, top - 0.82)], style)
            }))?;
            chart.draw_series(placed().filter_map(|(top, bar)| {
                let (low, high) = bar.interval?;
                let y = top - 0.5;
                Some(PathElement::new([(low, y), (high, y)], TEXT.stroke_width(2)))
            }))?;
            let left = font(15).pos(Pos::new(HPos::Right, VPos::Center));
            let right = font(15).pos(Pos::new(HPos::Left, VPos::Center));
            for (top, bar) in placed() {
                let end = bar.interval.map_or(bar.value, |i| i.1.max(bar.value));
                let (x0, y) = chart.backend_coord(&(0.0, top - 0.5));
                let (x1, _) = chart.backend_coord(&(end.clamp(0.0, longest), top - 0.5));
                area.draw_text(&bar.name, &left, (x0 - 8, y))?;
                area.draw_text(&bar.text, &right, (x1 + 8, y))?;
            }
            Ok(())
        })
    }

    /// The bars for desktop and phone.
    pub fn figure(&self, width: u32) -> Markup {
        figure(&self.title, &[], [width, 0], |[width, _]| self.svg(width))
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn font(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&TEXT)
}

/// Draws into memory, where drawing cannot fail but for a slip in this module; then there is no picture.
fn draw(size: [u32; 2], body: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (size[0], size[1])).into_drawing_area();
    let drawn = body(&area).and_then(|()| Ok(area.present()?));
    drop(area);
    debug_assert!(drawn.is_ok(), "{drawn:?}");
    svg
}

/// A drawing for desktop and phone, with a legend of names and numbers of colours above it.
pub fn figure(
    title: &str,
    legend: &[(&str, usize)],
    [width, height]: [u32; 2],
    svg: impl Fn([u32; 2]) -> String,
) -> Markup {
    html! {
        figure.plot role="img" aria-label=(title) {
            @if !legend.is_empty() {
                div.legend {
                    @for (name, colour) in legend {
                        span { i class={ "s" (colour % SERIES.len() + 1) } {} (name) }
                    }
                }
            }
            div.wide { (PreEscaped(svg([width, height]))) }
            div.narrow { (PreEscaped(svg([NARROW, height.min(220)]))) }
        }
    }
}
