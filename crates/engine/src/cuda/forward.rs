//! The forward pass as a sequence of launches on a device.
//!
//! There are two paths through a layer. Batches of up to [`SKINNY_ROWS_MAX`] tokens are bound by launches and by
//! reading the weights: five kernels per layer, each product fused with the steps around it. Larger batches are bound
//! by arithmetic: the library computes the products, and kernels do the steps between them. On both paths the last
//! layer computes only what the `[CLS]` rows need.

use intentd_kernels::{
    Activation, Buffer, Capacity, Device, DeviceError, Dtype, Placed, Product, ProductShape,
    QueryRows, RowCount, SKINNY_ROWS_MAX, Skinny,
};

use super::weights::{DeviceLayer, DeviceLinear, DeviceModel};

/// Buffers for activations, for batches of up to a fixed size.
#[derive(Debug)]
pub(super) struct Arena {
    /// A layer's input, `[tokens, hidden]`, as are the next three.
    x: Buffer,
    attended: Buffer,
    sum: Buffer,
    context: Buffer,
    /// Queries, keys and values, `[tokens, 3 · hidden]`.
    qkv: Buffer,
    /// `[tokens, intermediate]`
    intermediate: Buffer,
    /// The first token of each sequence, `[sequences, hidden]`, as are the next two.
    first: Buffer,
    query: Buffer,
    pooled: Buffer,
    /// `[sequences, labels]`, f32.
    pub(super) logits: Buffer,
}

impl Arena {
    pub(super) fn new(
        device: &Device,
        model: &DeviceModel,
        size: Capacity,
    ) -> Result<Self, DeviceError> {
        let (h, ff) = (model.hidden, model.intermediate);
        let tokens = |columns: usize| device.zeros(model.dtype, size.tokens * columns);
        let sequences = |columns: usize| device.zeros(model.dtype, size.sequences * columns);
        Ok(Self {
            x: tokens(h)?,
            attended: tokens(h)?,
            sum: tokens(h)?,
            context: tokens(h)?,
            qkv: tokens(3 * h)?,
            intermediate: tokens(ff)?,
            first: sequences(h)?,
            query: sequences(h)?,
            pooled: sequences(h)?,
            logits: device.zeros(Dtype::F32, size.sequences * model.labels)?,
        })
    }
}

/// What the library adds to a product.
#[derive(Clone, Copy)]
enum Epilogue<'a> {
    Nothing,
    Bias,
    BiasAndResidual(&'a Buffer),
}

/// A model, its activations, and the device they are on.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) device: Device,
    pub(super) model: DeviceModel,
    pub(super) arena: Arena,
}

impl Forward {
    /// Enqueues the whole pass over a batch laid out for `capacity`. The logits go to the arena.
    pub(super) fn enqueue(&self, capacity: Capacity, batch: &Placed) -> Result<(), DeviceError> {
        let (device, model, arena) = (&self.device, &self.model, &self.arena);
        self.embed(capacity, batch)?;
        if self.is_skinny(capacity) {
            self.skinny_layers(batch)?;
        } else {
            self.library_layers(capacity, batch)?;
        }
        let DeviceLinear { w, bias } = &model.classifier;
        device.classify(&batch.sequences, &arena.pooled, w, bias, &arena.logits)
    }

    /// The embeddings, projected to the hidden size, in `x`.
    fn embed(&self, capacity: Capacity, batch: &Placed) -> Result<(), DeviceError> {
        let (device, model, arena) = (&self.device, &self.model, &self.arena);
        let Some(projection) = &model.projection else {
            return device.embed_norm(batch, &model.tables, &model.norm, &arena.x);
        };
        // No layer has written to the context yet.
        device.embed_norm(batch, &model.tables, &model.norm, &arena.context)?;
        if self.is_skinny(capacity) {
            let product = skinny(&arena.context, projection, &arena.x);
            device.skinny(&batch.tokens, &product)
        } else {
            device.product(&self.projection(capacity.tokens, projection))
        }
    }

    fn projection<'a>(&'a self, rows: usize, linear: &DeviceLinear) -> Product<'a> {
        let arena = &self.arena;
        self.product(rows, &arena.context, linear, Epilogue::Bias, &arena.x)
    }

    /// Whether batches of this size take the path for few tokens.
    pub(super) fn is_skinny(&self, capacity: Capacity) -> bool {
        let model = &self.model;
        capacity.tokens <= SKINNY_ROWS_MAX
            && matches!(model.dtype, Dtype::F16 | Dtype::Bf16)
            && model.embedding.is_multiple_of(32)
            && model.hidden.is_multiple_of(32)
            && model.intermediate.is_multiple_of(32)
    }

    fn skinny_layers(&self, batch: &Placed) -> Result<(), DeviceError> {
        let (device, model, arena) = (&self.device, &self.model, &self.arena);
        let mut previous: Option<&DeviceLayer> = None;
        let layers = model.layers().len();
        for (index, layer) in model.layers().enumerate() {
            let last = index + 1 == layers;
            // This product normalizes its input, the output of the previous layer.
            let norm = previous.map(|layer| (&layer.output_norm, Some(&arena.x)));
            let x = if norm.is_some() { &arena.sum } else { &arena.x };
            device.skinny(
                &batch.tokens,
                &Skinny {
                    norm,
                    ..skinny(x, &layer.qkv, &arena.qkv)
                },
            )?;
            self.attend(batch, last)?;
            let (rows, residual_rows) = if last {
                (&batch.sequences, Some(&batch.offsets))
            } else {
                (&batch.tokens, None)
            };
            let residual = Some((&arena.x, residual_rows));
            let product = skinny(&arena.context, &layer.attention_output, &arena.attended);
            device.skinny(
                rows,
                &Skinny {
                    residual,
                    ..product
                },
            )?;
            // The context is not needed any more. Its buffer takes the normalized rows, the next residual.
            let product = skinny(&arena.attended, &layer.intermediate, &arena.intermediate);
            let norm = Some((&layer.attention_norm, Some(&arena.context)));
            let activation = model.activation;
            device.skinny(
                rows,
                &Skinny {
                    norm,
                    activation,
                    ..product
                },
            )?;
            let residual = Some((&arena.context, None));
            let product = skinny(&arena.intermediate, &layer.output, &arena.sum);
            device.skinny(
                rows,
                &Skinny {
                    residual,
                    ..product
                },
            )?;
            previous = Some(layer);
        }
        let norm = previous.map(|layer| (&layer.output_norm, None));
        let product = skinny(&arena.sum, &model.pooler, &arena.pooled);
        let activation = model.pooler_activation;
        device.skinny(
            &batch.sequences,
            &Skinny {
                norm,
                activation,
                ..product
            },
        )
    }

    /// Attention from `qkv` to `context`, for all tokens or for the first token of each sequence.
    fn attend(&self, batch: &Placed, first_only: bool) -> Result<(), DeviceError> {
        let (device, model, arena) = (&self.device, &self.model, &self.arena);
        let (attention, q, stride) = (model.attention, &arena.qkv, 3 * model.hidden);
        if !first_only && attention.has_tiles(model.dtype) {
            return device.attention_tiles(batch, attention, q, &arena.context);
        }
        let rows = if first_only {
            QueryRows::First { q, stride }
        } else {
            QueryRows::All { q, stride }
        };
        let kv = q.slice(model.hidden..q.len());
        device.attention_rows(batch, attention, rows, (&kv, stride), &arena.context)
    }

    fn library_layers(&self, capacity: Capacity, batch: &Placed) -> Result<(), DeviceError> {
        let (device, model, arena) = (&self.device, &self.model, &self.arena);
        let tokens = (&batch.tokens, capacity.tokens);
        let sequences = (&batch.sequences, capacity.sequences);
        let mut layers = model.layers();
        let Some(last) = layers.next_back() else {
            return Ok(());
        };
        for layer in layers {
            device.product(&self.queries_keys_values(capacity.tokens, layer))?;
            self.attend(batch, false)?;
            self.feed_forward(tokens, layer, &arena.x)?;
        }
        device.product(&self.keys_values(capacity.tokens, last))?;
        device.gather_first(batch, &arena.x, &arena.first, model.hidden)?;
        device.product(&self.queries(capacity.sequences, last))?;
        let rows = QueryRows::Packed { q: &arena.query };
        let kv = (&arena.qkv, 2 * model.hidden);
        device.attention_rows(batch, model.attention, rows, kv, &arena.context)?;
        self.feed_forward(sequences, last, &arena.first)?;
        device.product(&self.pooler(capacity.sequences))?;
        let (rows, bias) = (sequences.0, &model.pooler.bias);
        device.bias_activation(rows, &arena.pooled, bias, model.pooler_activation)
    }

    /// The rest of a layer after attention: from `context` and the layer's input to its output in `x`.
    fn feed_forward(
        &self,
        (rows, size): (&RowCount, usize),
        layer: &DeviceLayer,
        input: &Buffer,
    ) -> Result<(), DeviceError> {
        let (device, model, arena) = (&self.device, &self.model, &self.arena);
        let [first, second, third] = self.feed_forward_products(size, layer, input);
        device.product(&first)?;
        device.norm(rows, &arena.sum, &layer.attention_norm, &arena.attended)?;
        device.product(&second)?;
        let bias = &layer.intermediate.bias;
        device.bias_activation(rows, &arena.intermediate, bias, model.activation)?;
        device.product(&third)?;
        device.norm(rows, &arena.sum, &layer.output_norm, &arena.x)
    }

    /// All library products of a pass of this size, one of each shape.
    pub(super) fn products(&self, capacity: Capacity) -> Vec<Product<'_>> {
        let Some(layer) = self.model.layers().next() else {
            return Vec::new();
        };
        if self.is_skinny(capacity) {
            return Vec::new();
        }
        let (arena, tokens, sequences) = (&self.arena, capacity.tokens, capacity.sequences);
        let mut products = vec![self.keys_values(tokens, layer)];
        let projection = self.model.projection.as_ref();
        products.extend(projection.map(|linear| self.projection(tokens, linear)));
        if self.model.layers().len() > 1 {
            products.push(self.queries_keys_values(tokens, layer));
            products.extend(self.feed_forward_products(tokens, layer, &arena.x));
        }
        products.push(self.queries(sequences, layer));
        products.extend(self.feed_forward_products(sequences, layer, &arena.first));
        products.push(self.pooler(sequences));
        products
    }

    fn queries_keys_values(&self, rows: usize, layer: &DeviceLayer) -> Product<'_> {
        let arena = &self.arena;
        self.product(rows, &arena.x, &layer.qkv, Epilogue::Bias, &arena.qkv)
    }

    fn keys_values(&self, rows: usize, layer: &DeviceLayer) -> Product<'_> {
        let h = self.model.hidden;
        let both = DeviceLinear {
            w: layer.qkv.w.slice(h * h..3 * h * h),
            bias: layer.qkv.bias.slice(h..3 * h),
        };
        self.product(rows, &self.arena.x, &both, Epilogue::Bias, &self.arena.qkv)
    }

    fn queries(&self, rows: usize, layer: &DeviceLayer) -> Product<'_> {
        let h = self.model.hidden;
        let query = DeviceLinear {
            w: layer.qkv.w.slice(0..h * h),
            bias: layer.qkv.bias.slice(0..h),
        };
        let arena = &self.arena;
        self.product(rows, &arena.first, &query, Epilogue::Bias, &arena.query)
    }

    /// The attention output with the residual, and both feed-forward products. The first of those has no bias here,
    /// because a kernel applies bias and activation.
    fn feed_forward_products<'a>(
        &'a self,
        rows: usize,
        layer: &DeviceLayer,
        input: &'a Buffer,
    ) -> [Product<'a>; 3] {
        let Arena {
            attended,
            sum,
            context,
            intermediate,
            ..
        } = &self.arena;
        let output = Epilogue::BiasAndResidual(input);
        let residual = Epilogue::BiasAndResidual(attended);
        let inner = &layer.intermediate;
        [
            self.product(rows, context, &layer.attention_output, output, sum),
            self.product(rows, attended, inner, Epilogue::Nothing, intermediate),
            self.product(rows, intermediate, &layer.output, residual, sum),
        ]
    }

    fn pooler(&self, rows: usize) -> Product<'_> {
        let arena = &self.arena;
        let pooler = &self.model.pooler;
        self.product(rows, &arena.x, pooler, Epilogue::Nothing, &arena.pooled)
    }

    fn product<'a>(
        &self,
        rows: usize,
        x: &'a Buffer,
        linear: &DeviceLinear,
        epilogue: Epilogue<'a>,
        y: &'a Buffer,
    ) -> Product<'a> {
        let outer = linear.bias.len();
        let bias = !matches!(epilogue, Epilogue::Nothing);
        let residual = match epilogue {
            Epilogue::BiasAndResidual(residual) => Some(residual),
            Epilogue::Nothing | Epilogue::Bias => None,
        };
        Product {
            shape: ProductShape {
                dtype: self.model.dtype,
                rows,
                inner: linear.w.len() / outer,
                outer,
                bias,
                residual: residual.is_some(),
            },
            x,
            w: linear.w.clone(),
            bias: bias.then(|| linear.bias.clone()),
            residual,
            y,
        }
    }
}

/// `y = x · wᵀ + bias`, nothing fused.
fn skinny<'a>(x: &'a Buffer, linear: &'a DeviceLinear, y: &'a Buffer) -> Skinny<'a> {
    Skinny {
        x,
        x_rows: None,
        norm: None,
        w: &linear.w,
        bias: &linear.bias,
        activation: Activation::None,
        residual: None,
        y,
    }
}
