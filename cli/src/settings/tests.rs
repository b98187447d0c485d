use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn flags_win_over_the_file_which_wins_over_the_defaults() {
    let file = file(
        "port = 1\nmax_workers = 7\n[http]\nmax_connections = 3\nhead_timeout_s = 9\n[limits]\nmax_config_kib = 3\nmax_configs_kib = 5\n",
    );
    let options: Options =
        toml::from_str("port = 2\n[http]\nhead_timeout_s = 4\n[limits]\nmax_configs_kib = 6").unwrap();
    let settings = Settings::load(&options, ClusterOptions::default(), Some(file.path())).unwrap();
    assert_eq!((settings.port, settings.max_workers, settings.intra_threads), (2, 7, 1));
    let http = settings.http.limits().unwrap();
    assert_eq!((http.connections, http.head.as_secs(), http.least_rate), (3, 4, 1024));
    let Limits { max_page_mib, max_config_kib, max_configs_kib, .. } = settings.limits;
    assert_eq!((max_page_mib, max_config_kib, max_configs_kib), (8, 3, 6));
}

#[test]
fn labels_are_keys_and_values() {
    let file = file("labels = [\"gpu=true\", \"note=a=b\"]");
    let settings = Settings::load(&Options::default(), ClusterOptions::default(), Some(file.path())).unwrap();
    let pairs = [("gpu", "true"), ("note", "a=b")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(settings.labels().unwrap(), Labels::from(pairs));
}

#[test]
fn what_is_dumped_can_be_loaded() {
    let load = |text: &str| {
        let file = file(text);
        Settings::load(&Options::default(), ClusterOptions::default(), Some(file.path())).unwrap().dump().unwrap()
    };
    let dumped = load("");
    assert_eq!(load(&dumped), dumped);
    let cluster = "[cluster]\nkafka_brokers = \"a:1,b:2\"\nrunner_id = \"r\"";
    assert!(load(cluster).ends_with(cluster), "{}", load(cluster));
}

#[test]
fn mistakes_are_named() {
    for (text, words) in [
        ("prot = 1", "prot"),
        ("port = 70000", "port"),
        ("[cluster]\nkafka_broker = \"a:1\"", "kafka_broker"),
        ("[http]\nmax_connection = 1", "max_connection"),
        ("[http]\nhead_timeout_s = 0", "head_timeout_s is 0"),
        ("max_workers = 0", "max_workers is 0"),
        ("labels = [\"gpu\"]", "`gpu` has no `=`"),
        ("labels = [\"=true\"]", "1 to 63"),
        ("labels = [\"site=a\", \"site=b\"]", "`site` is given twice"),
        ("source_networks = [\"10.1.0.0/33\"]", "source_networks"),
        ("hook_memory_mib = 4096", "at most 256"),
        ("max_picture_side = 20000", "at most 16384"),
        ("disk_reserve_mib = 3", "disk_reserve_mib is 3; it must be at least 8, or 0 for none"),
        ("worker_memory_mib = 63", "worker_memory_mib is 63; it must be at least 64"),
        ("worker_memory_mib = 0", "worker_memory_mib is 0; it must be at least 64"),
        ("[limits]\nmax_config_kib = 300", "limits.max_config_kib is 300, but limits.max_configs_kib is 256"),
        (
            "[http]\nmax_connections = 8\nmax_connections_per_peer = 9",
            "http.max_connections_per_peer is 9, but http.max_connections is 8",
        ),
        ("max_video_mib = 17592186044416", "max_video_mib"),
        ("[limits]\nmax_page_mib = 0", "limits.max_page_mib is 0"),
        ("[limits]\nmax_starts_min = 60001", "limits.max_starts_min is 60001; it must be 1 to 60000"),
        ("[limits]\nmax_prediction_kib = 199", "it must be 200 to"),
        ("[limits]\nmax_pag_mib = 1", "max_pag_mib"),
    ] {
        let error =
            Settings::load(&Options::default(), ClusterOptions::default(), Some(file(text).path())).unwrap_err();
        assert!(format!("{error:#}").contains(words), "{error:#}");
    }
    let error =
        Settings::load(&Options::default(), ClusterOptions::default(), Some(Path::new("/nowhere.toml"))).unwrap_err();
    assert!(format!("{error:#}").contains("/nowhere.toml"));
}
