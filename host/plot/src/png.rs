//! Rendering pictures to pixels.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{PixmapMut, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use super::font::FACES;
use super::svg::{Size, Svg};

/// A reusable buffer for drawing. Sharing it between pictures avoids the page faults of fresh memory.
#[derive(Default)]
pub(super) struct Canvas {
    pixels: Vec<u8>,
    /// For each pixel, the index of its colour.
    places: Vec<u8>,
}

impl Canvas {
    /// Draws a picture with `scale` pixels per CSS pixel. The file records this resolution, so that the printed size
    /// stays the same.
    ///
    /// # Errors
    /// If the picture does not fit into memory, or cannot be rendered.
    pub(super) fn encode(&mut self, svg: &Svg, scale: u32) -> Result<Vec<u8>, String> {
        static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
            let mut fonts = fontdb::Database::new();
            FACES.into_iter().for_each(|face| fonts.load_font_data(face.to_vec()));
            Arc::new(fonts)
        });
        let options = Options { fontdb: FONTS.clone(), ..Options::default() };
        let tree = Tree::from_str(&svg.text(), &options).map_err(|e| e.to_string())?;
        let Size { width, height } = svg.size();
        let (width, height) = (width * scale, height * scale);
        self.clear(width, height)?;
        let mut pixels = PixmapMut::from_bytes(&mut self.pixels, width, height).ok_or(TOO_LARGE)?;
        resvg::render(&tree, Transform::from_scale(scale as f32, scale as f32), &mut pixels);

        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        let opaque: Vec<u8>;
        // Pictures have few colours. One byte per pixel compresses in a tenth of the time, and to fewer bytes.
        let bytes = match indexed(&self.pixels, &mut self.places) {
            Some(palette) => {
                encoder.set_color(png::ColorType::Indexed);
                encoder.set_palette(palette);
                encoder.set_deflate_compression(png::DeflateCompression::Level(4));
                encoder.set_filter(png::Filter::NoFilter);
                &self.places
            }
            None => {
                encoder.set_color(png::ColorType::Rgb);
                // The background is opaque, so the alpha channel carries no information.
                opaque = self.pixels.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
                &opaque
            }
        };
        let per_metre = (f64::from(96 * scale) / 0.0254).round() as u32;
        encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: per_metre, yppu: per_metre, unit: png::Unit::Meter }));
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(bytes));
        written.map_err(|e| e.to_string())?;
        Ok(file)
    }

    /// Resets the buffer to transparent pixels of this size.
    fn clear(&mut self, width: u32, height: u32) -> Result<(), String> {
        let bytes = (width as usize).checked_mul(height as usize).and_then(|pixels| pixels.checked_mul(4));
        let bytes = bytes.ok_or(TOO_LARGE)?;
        self.pixels.clear();
        self.pixels.try_reserve_exact(bytes).map_err(|_| TOO_LARGE)?;
        self.pixels.resize(bytes, 0);
        Ok(())
    }
}

const TOO_LARGE: &str = "the picture is too large";

/// Indexes the colour of each pixel and returns the palette, or `None` if there are more colours than a byte can index.
fn indexed(pixels: &[u8], places: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (mut numbers, mut palette) = (BTreeMap::new(), Vec::new());
    places.clear();
    places.reserve(pixels.len() / 4);
    let mut last = None;
    for pixel in pixels.chunks_exact(4) {
        let colour = [pixel[0], pixel[1], pixel[2]];
        // Most pixels have the same colour as the one before.
        let number = match last {
            Some((before, number)) if before == colour => number,
            _ => match numbers.get(&colour) {
                Some(&number) => number,
                None => {
                    let number = u8::try_from(numbers.len()).ok()?;
                    numbers.insert(colour, number);
                    palette.extend(colour);
                    number
                }
            },
        };
        last = Some((colour, number));
        places.push(number);
    }
    Some(palette)
}

#[cfg(test)]
mod tests {
    use super::super::svg::{Area, INK};
    use super::*;

    #[test]
    fn more_than_256_colours_have_no_palette() {
        let of = |count: u16| (0..count).flat_map(|k| [k as u8, (k >> 8) as u8, 7, 255]).collect::<Vec<u8>>();
        let mut places = Vec::new();
        let palette = indexed(&[of(256), of(256)].concat(), &mut places).unwrap();
        assert_eq!((places.len(), palette.len(), places[255], places[257]), (512, 768, 255, 1));
        assert!(indexed(&of(257), &mut places).is_none());
    }

    #[test]
    fn the_colours_are_those_that_were_drawn() {
        let mut svg = Svg::new(Size { width: 4, height: 2 });
        svg.bar(Area { left: 0.0, top: 0.0, width: 2.0, height: 2.0 }, INK);
        let file = Canvas::default().encode(&svg, 1).unwrap();
        let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut colours = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut colours).unwrap();
        let row = [[0x22; 6], [0xff; 6]].concat();
        assert_eq!(colours, [row.clone(), row].concat());
    }

    #[test]
    fn a_canvas_shows_nothing_of_the_picture_before() {
        let picture = |size: Size, width: f64| {
            let mut svg = Svg::new(size);
            svg.bar(Area { left: 1.0, top: 1.0, width, height: 1.0 }, INK);
            svg
        };
        let pictures = [(40, 20), (4, 2), (40, 20), (8, 80)].map(|(width, height)| Size { width, height });
        let mut canvas = Canvas::default();
        for (k, size) in pictures.into_iter().enumerate() {
            let svg = picture(size, 1.0 + k as f64);
            assert_eq!(canvas.encode(&svg, 2).unwrap(), Canvas::default().encode(&svg, 2).unwrap());
        }
    }
}
