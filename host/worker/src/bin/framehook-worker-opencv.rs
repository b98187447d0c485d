//! `framehook-worker-opencv`: the worker for scenarios whose decoder is OpenCV.

fn main() {
    framehook_worker::cli::main(Some(framehook_worker::source::open_with_opencv))
}
