//! A picture as pixels.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use super::font::FACES;
use super::svg::{Size, Svg};

/// Draws a picture with `scale` pixels to a CSS pixel, and says so in the file, so that it has the same size on paper.
///
/// # Errors
/// If it does not fit into memory.
pub(super) fn encode(svg: &Svg, scale: u32) -> Result<Vec<u8>, String> {
    static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
        let mut fonts = fontdb::Database::new();
        FACES.into_iter().for_each(|face| fonts.load_font_data(face.to_vec()));
        Arc::new(fonts)
    });
    let options = Options { fontdb: FONTS.clone(), ..Options::default() };
    let tree = Tree::from_str(&svg.text(), &options).map_err(|e| e.to_string())?;
    let Size { width, height } = svg.size();
    let (width, height) = (width * scale, height * scale);
    let mut pixels = Pixmap::new(width, height).ok_or("the picture is too large")?;
    resvg::render(&tree, Transform::from_scale(scale as f32, scale as f32), &mut pixels.as_mut());

    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    // Pictures have few colours. One byte a pixel is packed in a tenth of the time, and into fewer bytes.
    let bytes = match indexed(pixels.data()) {
        Some((places, palette)) => {
            encoder.set_color(png::ColorType::Indexed);
            encoder.set_palette(palette);
            encoder.set_deflate_compression(png::DeflateCompression::Level(4));
            encoder.set_filter(png::Filter::NoFilter);
            places
        }
        None => {
            encoder.set_color(png::ColorType::Rgb);
            // The background is opaque, so the fourth channel tells nothing.
            pixels.data().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
        }
    };
    let per_metre = (f64::from(96 * scale) / 0.0254).round() as u32;
    encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: per_metre, yppu: per_metre, unit: png::Unit::Meter }));
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&bytes));
    written.map_err(|e| e.to_string())?;
    Ok(file)
}

/// For each pixel the number of its colour, and the colours; none if there are more than a byte can number.
fn indexed(pixels: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut numbers, mut palette) = (BTreeMap::new(), Vec::new());
    let mut places = Vec::with_capacity(pixels.len() / 4);
    let mut last = None;
    for pixel in pixels.chunks_exact(4) {
        let colour = [pixel[0], pixel[1], pixel[2]];
        // Most pixels have the colour of the one before.
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
    Some((places, palette))
}

#[cfg(test)]
mod tests {
    use super::super::svg::{Area, INK};
    use super::*;

    #[test]
    fn more_than_256_colours_have_no_palette() {
        let of = |count: u16| (0..count).flat_map(|k| [k as u8, (k >> 8) as u8, 7, 255]).collect::<Vec<u8>>();
        let (places, palette) = indexed(&[of(256), of(256)].concat()).unwrap();
        assert_eq!((places.len(), palette.len(), places[255], places[257]), (512, 768, 255, 1));
        assert!(indexed(&of(257)).is_none());
    }

    #[test]
    fn the_colours_are_those_that_were_drawn() {
        let mut svg = Svg::new(Size { width: 4, height: 2 });
        svg.bar(Area { left: 0.0, top: 0.0, width: 2.0, height: 2.0 }, INK);
        let file = encode(&svg, 1).unwrap();
        let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut colours = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut colours).unwrap();
        let row = [[0x22; 6], [0xff; 6]].concat();
        assert_eq!(colours, [row.clone(), row].concat());
    }
}
