//! Line charts: panels one below the other, as SVG or PNG.

use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

/// Width of the picture in pixels.
const WIDTH: u32 = 960;
/// Height of a panel in pixels.
const PANEL_HEIGHT: u32 = 360;
/// Colours that colour-blind readers can tell apart (Okabe and Ito, "Color Universal Design", 2008).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
const FONT: &str = "sans-serif";

/// Why a picture cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The file name ends in neither `.svg` nor `.png`.
    #[error("{0}: expected a file name that ends in .svg or .png")]
    Form(String),
    /// The drawing library or the file system failed.
    #[error("{0}: {1}")]
    Failed(String, String),
}

/// One panel: lines over a common axis.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    /// The title above the panel.
    pub title: String,
    /// The label of the horizontal axis.
    pub x: String,
    /// The label of the vertical axis.
    pub y: String,
    /// Whether the vertical axis is logarithmic. Points that are not above zero are then left out.
    pub logarithmic: bool,
    /// The lines.
    pub lines: Vec<Line>,
}

/// One line of a panel.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// The name in the legend; an empty name has no entry.
    pub name: String,
    /// The index of the colour. Lines of one colour belong together.
    pub colour: usize,
    /// The style.
    pub stroke: Stroke,
    /// Pairs of horizontal and vertical values.
    pub points: Vec<(f64, f64)>,
}

/// The style of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stroke {
    /// A thick line with a dot at each point.
    #[default]
    Strong,
    /// A thin line, for secondary values.
    Faint,
    /// A dashed line, for limits.
    Dashed,
}

/// Checks that the extension of `path` names a supported format.
///
/// # Errors
/// When it is neither `.svg` nor `.png`.
pub fn check(path: &Path) -> Result<(), PlotError> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg" | "png") => Ok(()),
        _ => Err(PlotError::Form(path.display().to_string())),
    }
}

/// Width and height of a picture, in pixels.
#[derive(Debug, Clone, Copy)]
struct PictureSize {
    width: u32,
    height: u32,
}

impl From<PictureSize> for (u32, u32) {
    fn from(size: PictureSize) -> Self {
        (size.width, size.height)
    }
}

/// Writes the panels to `path`, one below the other. The extension selects the format.
///
/// # Errors
/// When the extension is neither `.svg` nor `.png`, or the file cannot be written.
pub fn save(path: &Path, panels: &[Panel]) -> Result<(), PlotError> {
    let size = PictureSize {
        width: WIDTH,
        height: PANEL_HEIGHT * panels.len().max(1) as u32,
    };
    let failed = |error: String| PlotError::Failed(path.display().to_string(), error);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => {
            // Drawn in memory first: the library completes a file only when the backend is dropped.
            let mut svg = String::new();
            draw(SVGBackend::with_string(&mut svg, size.into()), panels).map_err(failed)?;
            std::fs::write(path, svg).map_err(|error| failed(error.to_string()))
        }
        Some("png") => {
            let mut pixels = vec![0; (size.width * size.height * 3) as usize];
            let bitmap = BitMapBackend::with_buffer(&mut pixels, size.into());
            draw(bitmap, panels).map_err(failed)?;
            write_png(path, &pixels, size).map_err(|error| failed(error.to_string()))
        }
        _ => Err(PlotError::Form(path.display().to_string())),
    }
}

fn write_png(path: &Path, rgb: &[u8], size: PictureSize) -> std::io::Result<()> {
    let file = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut encoder = png::Encoder::new(file, size.width, size.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(rgb)?;
    Ok(writer.finish()?)
}

fn draw<D: DrawingBackend>(backend: D, panels: &[Panel]) -> Result<(), String> {
    // The font is built in, since the machine may have none.
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| "the font in this program is not one".to_owned())?;
    let area = backend.into_drawing_area();
    let drawn = (|| {
        area.fill(&WHITE)?;
        let areas = area.split_evenly((panels.len().max(1), 1));
        for (area, panel) in areas.iter().zip(panels) {
            panel.draw(area)?;
        }
        area.present()
    })();
    drawn.map_err(|error: DrawingAreaErrorKind<D::ErrorType>| error.to_string())
}

impl Panel {
    fn draw<D: DrawingBackend>(
        &self,
        area: &DrawingArea<D, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<D::ErrorType>> {
        let lines: Vec<Vec<(f64, f64)>> = self.lines.iter().map(|line| self.scaled(line)).collect();
        let AxisRanges { x, y } = self.ranges(&lines);
        let labels = self.labels(&y);
        let y = LabelledAxis {
            values: y.into(),
            labels,
        };
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)?;
        let logarithmic = self.logarithmic;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .x_desc(&self.x)
            .y_desc(&self.y)
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 15))
            .x_label_formatter(&|x| number(*x))
            .y_label_formatter(&|y| number(if logarithmic { 10_f64.powf(*y) } else { *y }))
            .draw()?;
        for (line, points) in self.lines.iter().zip(lines) {
            let colour = COLOURS[line.colour % COLOURS.len()];
            let style = match line.stroke {
                Stroke::Strong => colour.stroke_width(2),
                Stroke::Faint => colour.mix(0.45).stroke_width(1),
                Stroke::Dashed => BLACK.mix(0.6).stroke_width(1),
            };
            let drawn = match line.stroke {
                Stroke::Dashed => chart.draw_series(DashedLineSeries::new(points, 5, 4, style))?,
                Stroke::Faint => chart.draw_series(LineSeries::new(points, style))?,
                Stroke::Strong => {
                    chart.draw_series(LineSeries::new(points, style).point_size(3))?
                }
            };
            if !line.name.is_empty() {
                drawn
                    .label(&line.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(200, 200, 200))
            .label_font((FONT, 14))
            .draw()
    }

    /// The points of a line in axis coordinates.
    fn scaled(&self, line: &Line) -> Vec<(f64, f64)> {
        let finite = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
        let points = line.points.iter().copied().filter(finite);
        match self.logarithmic {
            true => points
                .filter(|point| point.1 > 0.0)
                .map(|(x, y)| (x, y.log10()))
                .collect(),
            false => points.collect(),
        }
    }

    /// The positions of the labels on the vertical axis.
    fn labels(&self, y: &Range<f64>) -> Vec<f64> {
        let span = y.end - y.start;
        let steps = [1.0, 2.0, 5.0];
        if self.logarithmic {
            // 1, 2 and 5 in each decade, or only the decades if there are many.
            let steps = &steps[..if span > 2.0 { 1 } else { 3 }];
            let decades = y.start.floor() as i32..=y.end.ceil() as i32;
            let labels = decades.flat_map(|decade| {
                let decade = f64::from(decade);
                steps.iter().map(move |step| f64::log10(*step) + decade)
            });
            return labels.filter(|label| y.contains(label)).collect();
        }
        // The smallest round step that gives at most eight labels.
        let decade = 10_f64.powf((span / 8.0).log10().floor());
        let step = steps.iter().chain(&[10.0]).map(|step| step * decade);
        let step = step.clone().find(|step| span / step <= 8.0).unwrap_or(span);
        let first = (y.start / step).ceil() as i64;
        let labels = (first..).map(|n| n as f64 * step);
        labels.take_while(|label| *label <= y.end).collect()
    }

    fn ranges(&self, lines: &[Vec<(f64, f64)>]) -> AxisRanges {
        let range = |of: fn(&(f64, f64)) -> f64| {
            let values = lines.iter().flatten().map(of);
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            })
        };
        let (mut x, mut y) = (range(|point| point.0), range(|point| point.1));
        if x.0 > x.1 {
            (x, y) = ((0.0, 1.0), (0.0, 1.0));
        }
        x.0 = x.0.min(0.0);
        y.0 = if self.logarithmic {
            y.0 - 0.1
        } else {
            y.0.min(0.0)
        };
        let wider = |(low, high): (f64, f64)| low..high + (high - low).max(1e-9) * 0.06;
        AxisRanges {
            x: wider(x),
            y: wider(y),
        }
    }
}

/// The ranges of both axes of a panel.
struct AxisRanges {
    x: Range<f64>,
    y: Range<f64>,
}

/// An axis with labels at given positions.
struct LabelledAxis {
    values: RangedCoordf64,
    labels: Vec<f64>,
}

impl Ranged for LabelledAxis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.values.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.labels.clone()
    }

    fn range(&self) -> Range<f64> {
        self.values.range()
    }
}

/// A number rounded to three significant digits or to a whole number, without trailing zeros.
fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let decimals = (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel() -> Panel {
        Panel {
            title: "latency".to_owned(),
            x: "offered".to_owned(),
            y: "ms".to_owned(),
            logarithmic: true,
            lines: vec![
                Line {
                    name: "p99".to_owned(),
                    points: vec![(10.0, 1.0), (20.0, 100.0), (30.0, f64::NAN), (40.0, 0.0)],
                    ..Line::default()
                },
                Line {
                    stroke: Stroke::Dashed,
                    points: vec![(0.0, 50.0), (40.0, 50.0)],
                    ..Line::default()
                },
            ],
        }
    }

    #[test]
    fn the_extension_selects_the_format() {
        let directory = tempfile::tempdir().unwrap();
        let svg = directory.path().join("a.svg");
        save(&svg, &[panel(), Panel::default()]).unwrap();
        let text = std::fs::read_to_string(&svg).unwrap();
        for part in ["<svg", "latency", "p99", "</svg>"] {
            assert!(text.contains(part), "{part}");
        }
        let png = directory.path().join("a.png");
        save(&png, &[panel()]).unwrap();
        let file = std::io::BufReader::new(std::fs::File::open(&png).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut picture = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut picture).unwrap();
        assert_eq!((frame.width, frame.height), (960, 360));
        let (pixels, _) = picture.as_chunks::<3>();
        let white = pixels.iter().filter(|pixel| **pixel == [255; 3]).count();
        assert!(white < 960 * 360 && white > 960 * 200, "something is drawn");
        let pdf = save(&directory.path().join("a.pdf"), &[panel()]).unwrap_err();
        assert!(pdf.to_string().contains(".svg or .png"), "{pdf}");
        assert!(save(Path::new("/no/such/folder/a.png"), &[panel()]).is_err());
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1234.0, "1234"),
            (0.5, "0.5"),
            (0.123_456, "0.123"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
