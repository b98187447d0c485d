//! The guest's side of one version, as far as all versions have it alike: its exports, found and called.

/// A plugin whose imports are bound and whose exports are found, and a living one. To be called where
/// `lifecycle`, `preprocess` and `postprocess` are the generated exports of that version.
macro_rules! common_guest {
    ($version:literal) => {
        /// A plugin whose imports are bound and whose exports are found.
        #[derive(Clone)]
        pub(crate) struct Code {
            instance: InstancePre<Ctx>,
            lifecycle: lifecycle::GuestIndices,
            pub(crate) preprocess: Option<preprocess::GuestIndices>,
            pub(crate) postprocess: Option<postprocess::GuestIndices>,
        }

        impl Code {
            pub(crate) fn link(linker: &Linker<Ctx>, component: &Component) -> wasmtime::Result<Self> {
                let instance = linker.instantiate_pre(component)?;
                let exports = |name: &str| component.get_export_index(None, name).is_some();
                let lifecycle = lifecycle::GuestIndices::new(&instance)?;
                let preprocess = exports(concat!("framehook:plugin/preprocess@", $version))
                    .then(|| preprocess::GuestIndices::new(&instance))
                    .transpose()?;
                let postprocess = exports(concat!("framehook:plugin/postprocess@", $version))
                    .then(|| postprocess::GuestIndices::new(&instance))
                    .transpose()?;
                Ok(Self { instance, lifecycle, preprocess, postprocess })
            }
        }

        /// A living plugin.
        pub(crate) struct Instance {
            guarded: Guarded,
            lifecycle: lifecycle::Guest,
            preprocess: Option<preprocess::Guest>,
            postprocess: Option<postprocess::Guest>,
            limits: HookLimits,
        }

        impl Instance {
            pub(crate) fn new(code: &Code, limits: HookLimits, given: Given) -> Result<Self, Failure> {
                let mut guarded = Guarded::new(code.instance.engine(), &limits, given);
                let (lifecycle, preprocess, postprocess) = guarded.enter(ms(limits.init_ms), None, |store| {
                    let instance = code.instance.instantiate(&mut *store)?;
                    Ok((
                        code.lifecycle.load(&mut *store, &instance)?,
                        code.preprocess.as_ref().map(|p| p.load(&mut *store, &instance)).transpose()?,
                        code.postprocess.as_ref().map(|p| p.load(&mut *store, &instance)).transpose()?,
                    ))
                })?;
                Ok(Self { guarded, lifecycle, preprocess, postprocess, limits })
            }
        }
    };
}
pub(super) use common_guest;

/// The calls that all versions have alike; to be called in the version's implementation of `abi::Instance`.
macro_rules! common_calls {
    () => {
        fn describe(&mut self) -> Result<PluginManifest, Failure> {
            let limit = ms(self.limits.describe_ms);
            let descriptor = self.guarded.enter(limit, None, |store| self.lifecycle.call_describe(store))?;
            manifest(descriptor, (self.preprocess.is_some(), self.postprocess.is_some()))
        }

        fn validate_config(&mut self, config: &str) -> Result<Vec<ConfigProblem>, Failure> {
            let limit = ms(self.limits.describe_ms);
            let verdict =
                self.guarded.enter(limit, None, |store| self.lifecycle.call_validate_config(store, config))?;
            Ok(problems(verdict))
        }

        fn preprocess(&mut self, frame: &Frame<'_>) -> Result<Decision, Failure> {
            let Self { guarded, preprocess: Some(hook), limits, .. } = self else {
                return Err(missing("preprocess"));
            };
            let view = View::Frame(*frame);
            let decided = guarded.enter(ms(limits.call_ms), Some(&view), |store| {
                hook.call_preprocess(store, Resource::new_borrow(THE_ONE))
            })?;
            decision(decided.map_err(failure)?, guarded.ctx(), frame)
        }

        fn postprocess(
            &mut self,
            inference: &Inference<'_>,
            so_far: &[Detection],
            labels: &[String],
        ) -> Result<Outcome, Failure> {
            let Self { guarded, postprocess: Some(hook), limits, .. } = self else {
                return Err(missing("postprocess"));
            };
            let view = View::Inference(*inference, labels);
            let so_far: Vec<_> = so_far.iter().map(to_guest).collect();
            let made = guarded.enter(ms(limits.call_ms), Some(&view), |store| {
                hook.call_postprocess(store, Resource::new_borrow(THE_ONE), &so_far)
            })?;
            outcome(made.map_err(failure)?)
        }

        fn flush(&mut self) -> Result<Vec<Event>, Failure> {
            let Self { guarded, postprocess: Some(hook), limits, .. } = self else {
                return Err(missing("postprocess"));
            };
            let said = guarded.enter(ms(limits.init_ms), None, |store| hook.call_flush(store))?;
            // Nothing says which detections a late event is about.
            events(said.map_err(failure)?, 0)
        }

        fn used(&self) -> Used {
            self.guarded.used()
        }

        fn shutdown(&mut self) -> Result<(), Failure> {
            self.guarded.enter(ms(self.limits.describe_ms), None, |store| self.lifecycle.call_shutdown(store))
        }
    };
}
pub(super) use common_calls;
