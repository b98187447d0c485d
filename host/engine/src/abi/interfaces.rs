//! The host's side of the interfaces of one version, as far as all versions have them alike: conversions, and
//! calls of what [`super::access`] does.

/// All but the methods of an inference. To be called where `types`, `media`, `state`, `clock` and `log` are
/// that version's.
macro_rules! common_interfaces {
    () => {
        impl types::Host for Ctx {}

        impl From<types::Size> for own::Size {
            fn from(types::Size { width, height }: types::Size) -> Self {
                Self { width, height }
            }
        }

        impl From<own::Size> for types::Size {
            fn from(own::Size { width, height }: own::Size) -> Self {
                Self { width, height }
            }
        }

        impl From<types::Rect> for own::Region {
            fn from(types::Rect { x, y, width, height }: types::Rect) -> Self {
                Self { x, y, width, height }
            }
        }

        impl From<own::Geometry> for media::Geometry {
            fn from(own::Geometry { scale_x, scale_y, pad_x, pad_y }: own::Geometry) -> Self {
                Self { scale_x, scale_y, pad_x, pad_y }
            }
        }

        impl From<media::Geometry> for own::Geometry {
            fn from(media::Geometry { scale_x, scale_y, pad_x, pad_y }: media::Geometry) -> Self {
                Self { scale_x, scale_y, pad_x, pad_y }
            }
        }

        impl From<media::PixelFormat> for own::PixelFormat {
            fn from(format: media::PixelFormat) -> Self {
                match format {
                    media::PixelFormat::Rgb => Self::Rgb,
                    media::PixelFormat::Bgr => Self::Bgr,
                    media::PixelFormat::Gray => Self::Gray,
                }
            }
        }

        fn meta(position: Position, size: own::Size) -> types::FrameMeta {
            let (sequence, pts_us) = told(position);
            types::FrameMeta { sequence, pts_us, size: size.into() }
        }

        impl media::HostTensor for Ctx {
            fn from_f32(&mut self, shape: Vec<u32>, data: Vec<f32>) -> wasmtime::Result<Answer<Resource<Tensor>>> {
                Ok(self.make_tensor(shape, data)?.map_err(Into::into))
            }

            fn shape(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u32>> {
                Ok(self.table.get(&tensor)?.shape.clone())
            }

            fn drop(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<()> {
                self.drop_tensor(tensor)
            }
        }

        impl media::HostFrame for Ctx {
            fn meta(&mut self, _: Resource<FrameHandle>) -> wasmtime::Result<types::FrameMeta> {
                let own::Frame { position, size, .. } = self.frame()?;
                Ok(meta(position, size))
            }

            fn input_size(&mut self, _: Resource<FrameHandle>) -> wasmtime::Result<types::Size> {
                Ok(self.frame()?.input_size.into())
            }

            fn read(
                &mut self,
                _: Resource<FrameHandle>,
                region: types::Rect,
                target: types::Size,
                format: media::PixelFormat,
            ) -> wasmtime::Result<Answer<Vec<u8>>> {
                Ok(self.frame_pixels(region.into(), target.into(), format.into())?.map_err(Into::into))
            }

            fn to_tensor(
                &mut self,
                _: Resource<FrameHandle>,
                region: types::Rect,
            ) -> wasmtime::Result<Answer<(Resource<Tensor>, media::Geometry)>> {
                let made = self.make_input(region.into())?;
                Ok(made.map(|(tensor, geometry)| (tensor, geometry.into())).map_err(Into::into))
            }

            fn drop(&mut self, _: Resource<FrameHandle>) -> wasmtime::Result<()> {
                Ok(())
            }
        }

        impl state::Host for Ctx {
            fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
                Ok(self.state.lock().get(&key))
            }

            fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), state::StateError>> {
                Ok(self.state.lock().set(key, value).map_err(|why| match why {
                    NotKept::TooLarge => state::StateError::TooLarge,
                    NotKept::QuotaExceeded => state::StateError::QuotaExceeded,
                }))
            }

            fn delete(&mut self, key: String) -> wasmtime::Result<()> {
                self.state.lock().delete(&key);
                Ok(())
            }
        }

        impl clock::Host for Ctx {
            fn now_us(&mut self) -> wasmtime::Result<u64> {
                Ok(self.now_us)
            }
        }

        impl From<log::Level> for LogLevel {
            fn from(level: log::Level) -> Self {
                match level {
                    log::Level::Trace => Self::Trace,
                    log::Level::Debug => Self::Debug,
                    log::Level::Info => Self::Info,
                    log::Level::Warn => Self::Warn,
                    log::Level::Error => Self::Error,
                }
            }
        }
    };
}
pub(super) use common_interfaces;

/// The methods of an inference that all versions have alike; to be called in the version's implementation.
macro_rules! common_inference {
    () => {
        fn meta(&mut self, handle: Resource<Held>) -> wasmtime::Result<types::FrameMeta> {
            let own::Inference { position, size, .. } = self.inference(&handle)?;
            Ok(meta(position, size))
        }

        fn geometry(&mut self, handle: Resource<Held>) -> wasmtime::Result<media::Geometry> {
            Ok(self.inference(&handle)?.geometry.into())
        }

        fn input_size(&mut self, handle: Resource<Held>) -> wasmtime::Result<types::Size> {
            Ok(self.inference(&handle)?.input_size.into())
        }

        fn read_f32(
            &mut self,
            handle: Resource<Held>,
            output: u32,
            offset: u32,
            count: u32,
        ) -> wasmtime::Result<Answer<Vec<f32>>> {
            Ok(self.floats(&handle, output, offset, count)?.map_err(Into::into))
        }

        fn gather_f32(
            &mut self,
            handle: Resource<Held>,
            output: u32,
            elements: Vec<u32>,
        ) -> wasmtime::Result<Answer<Vec<f32>>> {
            Ok(self.single_floats(&handle, output, &elements)?.map_err(Into::into))
        }

        fn argmax_rows(
            &mut self,
            handle: Resource<Held>,
            output: u32,
            scores: media::ClassScores,
            threshold: f32,
            limit: u32,
        ) -> wasmtime::Result<Answer<Vec<media::Candidate>>> {
            let layout = scan::Layout {
                rows: scores.rows as usize,
                classes: scores.classes as usize,
                offset: scores.offset as usize,
                row_stride: scores.row_stride as usize,
                class_stride: scores.class_stride as usize,
            };
            let found = self.best_of_rows(&handle, output, &layout, threshold, limit)?;
            let told = |c: scan::Candidate| media::Candidate { row: c.row, class_id: c.class_id, score: c.score };
            Ok(found.map(|found| found.into_iter().map(told).collect()).map_err(Into::into))
        }

        fn read_pixels(
            &mut self,
            handle: Resource<Held>,
            region: types::Rect,
            target: types::Size,
            format: media::PixelFormat,
        ) -> wasmtime::Result<Answer<Vec<u8>>> {
            Ok(self.inference_pixels(&handle, region.into(), target.into(), format.into())?.map_err(Into::into))
        }

        fn drop(&mut self, handle: Resource<Held>) -> wasmtime::Result<()> {
            self.drop_answer(handle)
        }
    };
}
pub(super) use common_inference;
