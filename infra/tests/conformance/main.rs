//! What every store and every bus must do, run on each adapter there is.
//!
//! The suites know the traits only. An adapter takes part with one line for each at the end, and functions
//! that open it on a fresh database and again on the same one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod artifacts;
mod bus;
mod fixtures;
mod frozen;
mod hook_state;
mod kafka;
mod lifecycle;
mod logs;
mod orchestrator;
mod postgres;
mod recorded;
mod results;
mod revisions;
mod scenarios;
mod shadow;
mod sqlite;

use std::time::Duration;

/// Nothing here takes a tenth of it, even on a busy machine; what waits for ever fails by it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs each named check, a function of an opener, against one adapter. An opener gives the same database
/// each time it is asked, what was opened before having been dropped.
macro_rules! suite {
    ($adapter:ident, $($module:ident { $($check:ident),+ $(,)? })+) => {
        $(mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let database = crate::$adapter::Database::fresh().await;
                tokio::time::timeout(crate::DEADLINE, crate::$module::$check(&database)).await.expect("in time");
            })+
        })+
    };
}

/// What every store must do.
macro_rules! store_suite {
    ($adapter:ident) => {
        suite! {
            $adapter,
            scenarios {
                creating_writes_scenario_history_and_wake_up,
                an_idempotency_key_makes_one_scenario,
                pages_are_newest_first_and_filtered,
                a_page_of_scenarios_is_bounded_by_bytes,
                wishing_twice_is_wishing_once,
                wishing_from_every_state,
                wishes_that_come_again_and_again_are_counted,
                crashes_that_come_again_and_again_are_counted,
                a_long_history_keeps_its_beginning_and_its_end,
                deleted_stays_deleted,
                unknown_scenarios_are_not_found,
            }
            results {
                predictions_come_back_as_stored_and_in_order,
                ranges_and_cursors,
                a_read_is_bounded_by_bytes,
                the_offset_moves_only_from_where_it_is,
                a_lower_generation_changes_nothing,
                the_stored_position_never_goes_back,
                results_of_deleted_and_unknown_scenarios_are_dropped,
                dead_letters_move_the_offset,
                every_frame_is_accounted_for_once,
                consumers_have_offsets_of_their_own,
                competing_inboxes_store_each_batch_once,
            }
            artifacts {
                names_are_never_re_pointed,
                the_last_signature_counts,
                references_resolve,
                lists_come_in_pages,
                an_artifact_in_use_is_not_deleted,
                a_refusal_names_who_needs_it,
                a_blob_is_orphaned_with_its_last_name,
            }
            orchestrator {
                one_leads_and_epochs_grow,
                a_new_epoch_extends_the_leases_of_runners,
                every_write_checks_the_epoch,
                heartbeats_in_any_order,
                of_a_batch_the_newest_of_each_incarnation_counts,
                what_is_told_of_hooks_stays_until_more_is_told,
                orders_are_counted_from_when_they_were_published,
                a_written_off_incarnation_gets_nothing_until_it_is_heard_of_again,
                a_newer_incarnation_replaces_an_older_one,
                the_snapshot_shows_what_is_not_at_rest,
                the_snapshot_shows_labels_on_both_sides,
                what_ran_the_stored_frames_is_wanted_again,
                the_snapshot_shows_memory_of_scenarios_workers_and_runners,
                competing_leaders_get_different_epochs,
            }
            hook_state {
                a_deployment_gets_the_state_of_the_frame_it_goes_on_behind,
                a_record_that_comes_again_changes_no_state,
                a_deployment_that_was_replaced_changes_no_state,
                state_is_stored_with_its_rows_or_not_at_all,
                nothing_is_left_of_a_deleted_scenario,
            }
            revisions {
                a_change_starts_from_what_was_seen,
                the_worker_that_runs_is_told,
                a_revision_that_failed_is_rolled_back,
                what_begins_anew_keeps_nothing,
                a_plugin_in_development_is_replaced,
            }
            logs {
                lines_come_back_as_stored_and_in_order,
                a_line_that_comes_again_or_too_late_changes_nothing,
                the_oldest_lines_go,
                a_deleted_scenario_has_no_log,
            }
            recorded {
                parts_come_back_once_and_in_order,
                the_oldest_parts_are_given_up,
                a_replay_keeps_what_it_reads,
            }
            shadow {
                what_a_shadow_found_comes_back_as_stored,
                what_a_shadow_found_before_changes_nothing,
                the_oldest_differences_go,
                nothing_is_left_of_what_a_shadow_found,
            }
            lifecycle {
                from_deploy_to_completed,
                a_deployed_worker_is_marked_with_its_order,
                stale_actions_change_nothing,
                illegal_transitions_are_errors,
                one_live_worker_and_growing_generations,
                repeating_and_stopping,
                an_explanation_adds_history_when_its_code_changes,
                a_deleted_scenario_is_purged_but_keeps_its_key,
                a_long_scenario_is_purged_in_steps,
                the_planner_settles_everything,
                an_unreadable_last_frame_keeps_nothing_from_completing,
                the_outbox_wakes_its_relay,
                trimming_keeps_what_is_needed,
                everything_survives_reopening,
            }
        }
    };
}

/// What every bus must do.
macro_rules! bus_suite {
    ($adapter:ident) => {
        suite! {
            $adapter,
            bus {
                records_keep_their_order_and_offsets_grow,
                a_tail_begins_at_the_end,
                a_tail_knows_when_it_has_given_everything,
                a_waiting_tail_is_woken,
                dropping_a_waiting_reader_loses_nothing,
                a_subscription_reads_from_where_it_seeks,
                nothing_is_delivered_before_the_first_seek,
                a_partition_is_read_by_one_member_at_a_time,
                what_is_forgotten_is_not_read_again,
                many_publishers_lose_and_reorder_nothing,
                topics_are_apart,
                the_log_survives_reopening,
            }
        }
    };
}

mod on_sqlite {
    store_suite!(sqlite);
    bus_suite!(sqlite);
}

mod on_postgres {
    store_suite!(postgres);
}

mod on_kafka {
    bus_suite!(kafka);
}
