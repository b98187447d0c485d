//! `framehook-worker`: decodes with libav. OpenCV's decoder loads a hundred libraries more at each start, so
//! it is in an executable of its own, `framehook-worker-opencv`.

fn main() {
    framehook_worker::cli::main(None)
}
