//! The forward pass as a sequence of launches on a device.
//!
//! Two ways through the same layers. A few tokens ([`SKINNY_ROWS_MAX`]) are bound by launches and
//! by the reading of the weights: five kernels a layer, each product with all that surrounds it.
//! More are bound by arithmetic: the library's products, with the rest in kernels between them.
//! Both compute, in the last layer, only what the `[CLS]` rows need.

use intentd_kernels::{
    Activation, Buffer, Capacity, Device, DeviceError, Dtype, Placed, Product, ProductShape,
    QueryRows, RowCount, SKINNY_ROWS_MAX, Skinny,
};

use super::weights::{Layer, Linear, Model};

/// Activations, for batches of up to a certain size.
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
    pub(super) fn new(device: &Device, model: &Model, size: Capacity) -> Result<Self, DeviceError> {
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

/// What is added to a product by the library.
#[derive(Clone, Copy)]
enum Added<'a> {
    Nothing,
    Bias,
    BiasAnd(&'a Buffer),
}

/// A model, its activations and a device to run it on.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) device: Device,
    pub(super) model: Model,
    pub(super) arena: Arena,
}

impl Forward {
    /// Enqueues the whole pass over a batch laid out for `capacity`: logits into the arena.
    pub(super) fn enqueue(&self, capacity: Capacity, batch: &Placed) -> Result<(), DeviceError> {
        let (device, model, arena) = (&self.device, &self.model, &self.arena);
        device.embed_norm(batch, &model.tables, &model.norm, &arena.x)?;
        if self.is_skinny(capacity) {
            self.skinny_layers(batch)?;
        } else {
            self.library_layers(capacity, batch)?;
        }
        let Linear { w, bias } = &model.classifier;
        device.classify(&batch.sequences, &arena.pooled, w, bias, &arena.logits)
    }

    /// Whether batches of this size go the way for few tokens.
    pub(super) fn is_skinny(&self, capacity: Capacity) -> bool {
        let model = &self.model;
        capacity.tokens <= SKINNY_ROWS_MAX
            && matches!(model.dtype, Dtype::F16 | Dtype::Bf16)
            && model.hidden.is_multiple_of(32)
            && model.intermediate.is_multiple_of(32)
    }

    fn skinny_layers(&self, batch: &Placed) -> Result<(), DeviceError> {
        let (device, model, arena) = (&self.device, &self.model, &self.arena);
        let mut previous: Option<&Layer> = None;
        for (index, layer) in model.layers.iter().enumerate() {
            let last = index + 1 == model.layers.len();
            // What the layer before left is normalized on the way into this product.
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
            // The context is used up; its buffer takes the normalized rows, the next residual.
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
        let activation = Activation::Tanh;
        device.skinny(
            &batch.sequences,
            &Skinny {
                norm,
                activation,
                ..product
            },
        )
    }

    /// From `qkv` to `context`: all tokens, or each sequence's first.
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
        let Some((last, layers)) = model.layers.split_last() else {
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
        device.bias_activation(rows, &arena.pooled, bias, Activation::Tanh)
    }

    /// From `context` and the layer's input to its output in `x`.
    fn feed_forward(
        &self,
        (rows, size): (&RowCount, usize),
        layer: &Layer,
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

    /// Every shape of product that a pass of this size asks the library for.
    pub(super) fn products(&self, capacity: Capacity) -> Vec<Product<'_>> {
        let Some(layer) = self.model.layers.first() else {
            return Vec::new();
        };
        if self.is_skinny(capacity) {
            return Vec::new();
        }
        let (arena, tokens, sequences) = (&self.arena, capacity.tokens, capacity.sequences);
        let mut products = vec![self.keys_values(tokens, layer)];
        if self.model.layers.len() > 1 {
            products.push(self.queries_keys_values(tokens, layer));
            products.extend(self.feed_forward_products(tokens, layer, &arena.x));
        }
        products.push(self.queries(sequences, layer));
        products.extend(self.feed_forward_products(sequences, layer, &arena.first));
        products.push(self.pooler(sequences));
        products
    }

    fn queries_keys_values(&self, rows: usize, layer: &Layer) -> Product<'_> {
        let arena = &self.arena;
        self.product(rows, &arena.x, &layer.qkv, Added::Bias, &arena.qkv)
    }

    fn keys_values(&self, rows: usize, layer: &Layer) -> Product<'_> {
        let h = self.model.hidden;
        let both = Linear {
            w: layer.qkv.w.slice(h * h..3 * h * h),
            bias: layer.qkv.bias.slice(h..3 * h),
        };
        self.product(rows, &self.arena.x, &both, Added::Bias, &self.arena.qkv)
    }

    fn queries(&self, rows: usize, layer: &Layer) -> Product<'_> {
        let h = self.model.hidden;
        let query = Linear {
            w: layer.qkv.w.slice(0..h * h),
            bias: layer.qkv.bias.slice(0..h),
        };
        let arena = &self.arena;
        self.product(rows, &arena.first, &query, Added::Bias, &arena.query)
    }

    /// Attention's output with the layer's input added, and both of the feed-forward network; what is
    /// behind the first of these has an activation, which the library does not know.
    fn feed_forward_products<'a>(
        &'a self,
        rows: usize,
        layer: &Layer,
        input: &'a Buffer,
    ) -> [Product<'a>; 3] {
        let Arena {
            attended,
            sum,
            context,
            intermediate,
            ..
        } = &self.arena;
        let output = Added::BiasAnd(input);
        let residual = Added::BiasAnd(attended);
        let inner = &layer.intermediate;
        [
            self.product(rows, context, &layer.attention_output, output, sum),
            self.product(rows, attended, inner, Added::Nothing, intermediate),
            self.product(rows, intermediate, &layer.output, residual, sum),
        ]
    }

    fn pooler(&self, rows: usize) -> Product<'_> {
        let arena = &self.arena;
        let pooler = &self.model.pooler;
        self.product(rows, &arena.x, pooler, Added::Nothing, &arena.pooled)
    }

    fn product<'a>(
        &self,
        rows: usize,
        x: &'a Buffer,
        linear: &Linear,
        added: Added<'a>,
        y: &'a Buffer,
    ) -> Product<'a> {
        let outer = linear.bias.len();
        let bias = !matches!(added, Added::Nothing);
        let residual = match added {
            Added::BiasAnd(residual) => Some(residual),
            Added::Nothing | Added::Bias => None,
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

/// `y = x · wᵀ + bias` and nothing around it.
fn skinny<'a>(x: &'a Buffer, linear: &'a Linear, y: &'a Buffer) -> Skinny<'a> {
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
