//! Progress bars: on a terminal they move, in a pipe a line says what takes long.

use std::{
    cell::Cell,
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use husk_image::{BlobState, Image, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

const BAR: &str = "{prefix:12} {msg:12} [{bar:30}] {bytes:>10}/{total_bytes:<10}";

/// What takes longer is told where no terminal shows it.
const LONG: Duration = Duration::from_secs(10);

/// A bar per layer.
pub(crate) struct Bars {
    all: MultiProgress,
    layers: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    /// Draws on standard error if that is a terminal.
    pub(crate) fn on_terminal() -> Self {
        Self { all: MultiProgress::new(), layers: Mutex::default() }
    }

    /// Draws nothing.
    pub(crate) fn hidden() -> Self {
        Self { all: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()), layers: Mutex::default() }
    }

    /// Shows a step.
    pub(crate) fn update(&self, step: &Progress) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = layers.entry(step.digest.hex().to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(step.total).with_style(style(BAR)));
            bar.set_prefix(husk_base::id::short(step.digest.hex()).to_owned());
            bar
        });
        bar.set_message(match step.state {
            BlobState::Waiting => "waiting",
            BlobState::Downloading => "downloading",
            BlobState::Verifying => "verifying",
            BlobState::Done => "done",
            BlobState::Exists => "exists",
        });
        bar.set_position(step.downloaded);
    }

    /// Takes the bars off the screen.
    pub(crate) fn clear(&self) {
        // A terminal that can't be written to shows no bars anyway.
        let _ = self.all.clear();
    }
}

/// One bar for the unpacking of an image. It is drawn from the first step on: most images are unpacked already.
pub(crate) struct UnpackBar {
    bar: ProgressBar,
    /// That it unpacks, on the screen or in a line where there is none.
    is_told: Cell<bool>,
}

impl UnpackBar {
    pub(crate) fn new(image: &Image) -> Self {
        let total = image.layers.iter().map(|layer| layer.size).sum();
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let bar = bar.with_style(style(BAR)).with_prefix("image").with_message("unpacking");
        Self { bar, is_told: Cell::new(false) }
    }

    /// So many bytes of the layers have been unpacked. With the last ones the bar leaves the screen to the container.
    pub(crate) fn update(&self, bytes: u64) {
        if bytes >= self.bar.length().unwrap_or(0) {
            self.bar.finish_and_clear();
            return;
        }
        if !self.is_told.get() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            let (is_shown, is_long) = (!self.bar.is_hidden(), self.bar.elapsed() > LONG);
            if is_long && !is_shown {
                let mib = self.bar.length().unwrap_or_default().div_ceil(1 << 20);
                crate::output::print_note(&format!("husk: unpacking the image ({mib} MiB)\n"));
            }
            self.is_told.set(is_shown || is_long);
        }
        self.bar.set_position(bytes);
    }
}

impl Drop for UnpackBar {
    fn drop(&mut self) {
        // When unpacking failed: the error gets a clean line.
        if !self.bar.is_hidden() && !self.bar.is_finished() {
            self.bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file, tested below.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_templates_are_sound() {
        assert!(indicatif::ProgressStyle::with_template(super::BAR).is_ok());
    }
}
