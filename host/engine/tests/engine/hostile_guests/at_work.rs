//! Those that are accepted, and contained when they are called.

use super::*;

pub(super) fn at_work() -> Vec<Hostile> {
    vec![
        (
            "endless loop in validate-config",
            || Guest::doing("#validate-config", LOOP).component(),
            Contained(At::Check, "deadline of 250 ms"),
        ),
        (
            "trap in validate-config",
            || Guest::doing("#validate-config", TRAP).component(),
            Contained(At::Check, "unreachable"),
        ),
        ("endless loop in init", || Guest::doing("#init", LOOP).component(), Contained(At::Start, "deadline")),
        ("trap in init", || Guest::doing("#init", TRAP).component(), Contained(At::Start, "unreachable")),
        (
            "endless loop in postprocess",
            || Guest::doing("#postprocess", LOOP).component(),
            Contained(At::Frame, "deadline of 20 ms"),
        ),
        (
            "endless loop in skipped",
            || {
                let curious = Guest {
                    bodies: vec![("#init", "(i32.const 2048)".into()), ("#skipped", LOOP.into())],
                    ..Guest::default()
                };
                curious.with(OWN, words(&[0, 0, 0, 1])).component()
            },
            Contained(At::Skipped, "deadline"),
        ),
        ("endless loop in flush", || Guest::doing("#flush", LOOP).component(), Contained(At::Flush, "deadline")),
        ("trap in flush", || Guest::doing("#flush", TRAP).component(), Contained(At::Flush, "unreachable")),
        ("endless loop in shutdown", || Guest::doing("#shutdown", LOOP).component(), Contained(At::Shutdown, "")),
        (
            "endless loop where the host asks for memory",
            || Guest::doing("cabi_realloc", LOOP).component(),
            Contained(At::Start, "deadline"),
        ),
        (
            "memory for the host outside of its own",
            || Guest::doing("cabi_realloc", "(i32.const 0x7fff0000)").component(),
            Contained(At::Start, ""),
        ),
        (
            "recursion",
            || Guest::doing("#postprocess", "(call $deep)").more(DEEP).component(),
            Contained(At::Frame, "call stack exhausted"),
        ),
        (
            "memory at once",
            || Guest::doing("#postprocess", "(drop (memory.grow (i32.const 60000))) (unreachable)").component(),
            Contained(At::Frame, "limit of 64 MiB"),
        ),
        (
            "memory in steps",
            || {
                Guest::doing(
                    "#postprocess",
                    "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)",
                )
                .component()
            },
            Contained(At::Frame, "limit of 64 MiB"),
        ),
        (
            "table in steps",
            || {
                Guest::doing("#postprocess",
            "(loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 64)) (i32.const -1)))) (unreachable)")
            .more("(table $t 1 funcref)").component()
            },
            Contained(At::Frame, "unreachable"),
        ),
        (
            "list of 2 GiB for the host",
            || {
                on_a_frame(
                    "(call $suppress (i32.const 0) (i32.const 0x7fffffff) (f32.const 0.5) (i32.const 0) (i32.const 9) (i32.const 600)) (unreachable)",
                )
            },
            Contained(At::Frame, ""),
        ),
        (
            "flood of handles",
            || {
                on_a_frame(&again(
                    "(call $from-f32 (i32.const 600) (i32.const 0) (i32.const 600) (i32.const 1) (i32.const 700))",
                ))
            },
            Contained(At::Frame, ""),
        ),
        (
            "flood of lines",
            || {
                on_a_frame(&again(
                    "(call $log (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 1000) (i32.const 0) (i32.const 0))",
                ))
            },
            Contained(At::Frame, "deadline"),
        ),
        (
            "line of 10 MB",
            || {
                let body = "(call $log (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 65536) (i32.const 10485760) (i32.const 0) (i32.const 0))";
                Guest::doing("#postprocess", &format!("{body} {DONE}")).pages(200).component()
            },
            Contained(At::Frame, ""),
        ),
        (
            "flood of state",
            || {
                // Another key each time: its first bytes count.
                let body = again(
                    "(i32.store (i32.const 1024) (i32.add (i32.const 1) (i32.load (i32.const 1024)))) \
                (i32.store (i32.const 1024) (i32.or (i32.and (i32.load (i32.const 1024)) (i32.const 0x3f3f3f3f)) (i32.const 0x40404040))) \
                (call $set (i32.const 1024) (i32.const 4) (i32.const 0) (i32.const 60000) (i32.const 600))",
                );
                on_a_frame(&body)
            },
            Contained(At::Frame, "deadline"),
        ),
        (
            "value of 10 MB",
            || {
                let body =
                    "(call $set (i32.const 1024) (i32.const 4) (i32.const 0) (i32.const 10485760) (i32.const 600))";
                Guest::doing("#postprocess", &format!("{body} {DONE}")).pages(200).component()
            },
            Contained(At::Frame, ""),
        ),
        (
            "flood of names of metrics",
            || {
                let body = again(
                    // 256 names of four letters, in no order.
                    "(i32.store (i32.const 1100) \
                        (i32.add (i32.const 1013904223) (i32.mul (i32.const 1664525) (i32.load (i32.const 1100))))) \
                     (i32.store (i32.const 1024) \
                        (i32.or (i32.const 0x61616161) (i32.and (i32.const 0x06060606) (i32.load (i32.const 1100))))) \
                     (call $add (i32.const 1024) (i32.const 4) (i64.const 1) (i32.const 600))",
                );
                on_a_frame(&body)
            },
            Contained(At::Frame, "deadline"),
        ),
        (
            "models without end",
            || {
                on_a_frame(&again(
                    "(call $run (i32.const 1024) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 600))",
                ))
            },
            Contained(At::Frame, "deadline"),
        ),
        (
            "elements outside of an output",
            || {
                on_a_frame(&format!(
                    "(call $read-f32 (local.get 0) (i32.const 9) (i32.const -1) (i32.const -1) (i32.const 600)) {DONE}"
                ))
            },
            Contained(At::Frame, ""),
        ),
        (
            "handle dropped twice",
            || Guest::doing("#postprocess", &format!("(call $inference (local.get 0)) {DONE}")).component(),
            Contained(At::Frame, ""),
        ),
        (
            "handle of nothing",
            || {
                on_a_frame(&format!(
                    "(call $read-f32 (i32.const 77) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 600)) {DONE}"
                ))
            },
            Contained(At::Frame, ""),
        ),
        (
            "result outside of its memory",
            || Guest::doing("#postprocess", "(i32.const 0x7fff0000)").component(),
            Contained(At::Frame, ""),
        ),
        (
            "result of 100,000,000 detections",
            || returns("#postprocess", vec![outcome([0, 100_000_000], [0, 0])]).component(),
            Contained(At::Frame, ""),
        ),
        (
            "20,000 detections",
            || returns("#postprocess", vec![outcome([1 << 16, 20_000], [0, 0])]).pages(64).component(),
            Contained(At::Frame, "at most 10000"),
        ),
        (
            "20,000 events",
            || returns("#postprocess", vec![outcome([0, 0], [1 << 16, 20_000])]).pages(64).component(),
            Contained(At::Frame, "at most 1000"),
        ),
        (
            "label of 10 MB",
            || finds(altered(&[(1, 1), (2, 65_536), (3, 10 << 20)]), vec![]).pages(200).component(),
            Contained(At::Frame, "bytes of text"),
        ),
        (
            "label that is no text",
            || finds(altered(&[(1, 1), (2, 3000), (3, 2)]), vec![(3000, vec![0xff, 0xff])]).component(),
            Contained(At::Frame, ""),
        ),
        (
            "boxes and scores that are no numbers",
            || finds(detection(f32::NAN, [f32::NAN; 4]), vec![]).component(),
            Contained(At::Frame, ""),
        ),
        (
            "infinite box",
            || finds(detection(0.5, [f32::NEG_INFINITY, 0.0, f32::INFINITY, 1.0]), vec![]).component(),
            Contained(At::Frame, ""),
        ),
        (
            "mask with runs of another length",
            || finds(altered(&[(18, 1), (19, 4), (20, 4), (21, 3000), (22, 1)]), vec![(3000, words(&[5]))]).component(),
            Contained(At::Frame, "runs of 5 cells"),
        ),
        (
            "mask of 4 billion cells",
            || finds(altered(&[(18, 1), (19, 65_535), (20, 65_535)]), vec![]).component(),
            Contained(At::Frame, "at most 4096 a side"),
        ),
        (
            "100,000,000 keypoints",
            || finds(altered(&[(14, 0), (15, 100_000_000)]), vec![]).component(),
            Contained(At::Frame, ""),
        ),
        (
            "one attribute twice",
            || {
                let attribute = [TEXTS, 7, 1, 0, 0, 0];
                finds(altered(&[(23, 3000), (24, 2)]), vec![(3000, words(&[attribute, attribute].concat()))])
                    .component()
            },
            Contained(At::Frame, "twice"),
        ),
        (
            "event about nothing",
            || {
                let event = [TEXTS, 7, 0, 3100, 1, 0, 0, 0, 0, 0, 0];
                returns("#postprocess", vec![outcome([0, 0], [3000, 1]), (3000, words(&event)), (3100, words(&[99]))])
                    .component()
            },
            Contained(At::Frame, "about detection 99"),
        ),
        (
            "event with an attribute of 8 MB",
            || {
                let event = [TEXTS, 7, 0, 0, 0, 3104, 1, 0, 0, 0, 0];
                let attribute = [TEXTS, 7, 2, 0, 1 << 16, 1 << 20];
                returns(
                    "#postprocess",
                    vec![outcome([0, 0], [3000, 1]), (3000, words(&event)), (3104, words(&attribute))],
                )
                .pages(200)
                .component()
            },
            Contained(At::Frame, "bytes of text"),
        ),
        (
            "severity that there is not",
            || {
                let event = [TEXTS, 7, 77, 0, 0, 0, 0, 0, 0, 0, 0];
                returns("#postprocess", vec![outcome([0, 0], [3000, 1]), (3000, words(&event))]).component()
            },
            Contained(At::Frame, ""),
        ),
        (
            "error of 10 MB",
            || returns("#postprocess", vec![(OWN, words(&[1, 1, 65_536, 10 << 20]))]).pages(200).component(),
            Contained(At::Frame, ""),
        ),
    ]
}
