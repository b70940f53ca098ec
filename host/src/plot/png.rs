//! A picture as pixels.

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
    // The background is opaque, so the fourth channel tells nothing.
    let colours: Vec<u8> = pixels.data().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();

    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    let per_metre = (f64::from(96 * scale) / 0.0254).round() as u32;
    encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: per_metre, yppu: per_metre, unit: png::Unit::Meter }));
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&colours));
    written.map_err(|e| e.to_string())?;
    Ok(file)
}
