// train_step.cu: whole epochs of training in one launch, for models that fit the shared memory of a block.
//
// A block trains one model: its weights, Adam's m and v, the batch and all that forward leaves for backward stay in
// shared memory from the first step to the last. So a step pays for no launch and fetches only the rows of its batch,
// and many models, that differ in seed and order of rows, are trained side by side, each on a multiprocessor.
#include "common.cuh"

enum StageKind { DENSE = 0, DROPOUT = 1 };
enum Loss { BINARY_CROSSENTROPY = 0, SQUARED_ERROR = 1, CATEGORICAL_CROSSENTROPY = 2, ABSOLUTE_ERROR = 3 };
constexpr int STAGE_NUMBERS = 4, STAGE_SETTINGS = 6;  // of a stage, in the two tables that describe a model
constexpr int MOST_STAGES = 16;

// One layer of a model, and where its numbers lie in shared memory.
template <typename T>
struct Stage {
    int kind, inputs, units, activation;
    // Dense: a bias is a further row of the kernel, of inputs that are all 1. A row is padded to an odd length, so that
    // the 32 threads that read a column of it find it in 32 different banks of shared memory.
    int bias, row, first;            // the row's length; where in the arena the parameters begin
    InShared<T> weights, m, v;       // (I + bias, row), (I + bias, U), (I + bias, U)
    InShared<T> v_hat;               // as v, with amsgrad
    T l1[2], l2[2], decay[2];        // of the kernel, of the bias
    double rate;                     // Dropout
    int draws;                       // the number of its seed state
    InShared<T> outputs, d_outputs;  // (B, U); of a Dense layer d_outputs becomes dL/d(pre-activations)
};

// What a block works on besides its stages.
template <typename T>
struct Batch {
    InShared<T> x, y, losses;  // (B, I), (B, U), (B, U)
    InShared<T> weights;       // (B,), if the samples have weights
    int rows;
    bool weighted;

    __device__ T weight(int b) const { return weighted ? weights[b] : T(1); }

    // What a loss of sample b counts in the mean of all, so many of each sample; mean: where samples have no weights.
    __device__ T share(int b, int of_sample, T mean) const {
        return weighted ? static_cast<T>(static_cast<double>(weights[b]) / rows / of_sample) : mean;
    }
};

// What the optimizer does besides Adam: a gradient is clipped to ±clipvalue, if that is above 0.
template <typename T>
struct Rule {
    AdamConstants<T> adam;
    bool amsgrad;
    T clipvalue;
};

// Lays out the stages of the tables and what they need in shared memory, from `memory` on. One thread.
template <typename T>
__device__ void lay_out(Stage<T>* stages, int count, Batch<T>* batch, InShared<T> memory, const int* numbers,
                        const double* settings, int features, int batch_size, bool weighted, bool amsgrad) {
    batch->weighted = weighted;
    batch->weights = memory;
    batch->x = batch->weights + (weighted ? batch_size : 0);
    memory = batch->x + batch_size * features;
    int inputs = features, first = 0, draws = 0;
    for (int k = 0; k < count; ++k, numbers += STAGE_NUMBERS, settings += STAGE_SETTINGS) {
        Stage<T>& stage = stages[k];
        stage.kind = numbers[0];
        stage.inputs = inputs;
        stage.units = numbers[1];
        stage.activation = numbers[2];
        stage.bias = numbers[3];
        stage.row = stage.units | 1;
        stage.first = first;
        if (stage.kind == DENSE) {
            const int rows = inputs + stage.bias;
            stage.weights = memory;
            stage.m = stage.weights + rows * stage.row;
            stage.v = stage.m + rows * stage.units;
            stage.v_hat = stage.v + rows * stage.units;
            memory = stage.v_hat + (amsgrad ? rows * stage.units : 0);
            first += rows * stage.units;
            for (int part = 0; part < 2; ++part) {
                stage.l1[part] = static_cast<T>(settings[2 * part]);
                stage.l2[part] = static_cast<T>(settings[2 * part + 1]);
                stage.decay[part] = static_cast<T>(settings[4 + part]);
            }
        } else {
            stage.rate = settings[0];
            stage.draws = draws++;
        }
        stage.outputs = memory;
        stage.d_outputs = stage.outputs + batch_size * stage.units;
        memory = stage.d_outputs + batch_size * stage.units;
        inputs = stage.units;
    }
    batch->y = memory;
    batch->losses = batch->y + batch_size * inputs;
}

// visit(element of the arena, weight, stage, element of its m and v, row, unit) for all parameters of a model, each by
// one thread.
template <typename T, typename Visit>
__device__ inline void visit_parameters(Stage<T>* stages, int parameters, Visit visit) {
    for (int i = threadIdx.x; i < parameters; i += blockDim.x) {
        int k = 0;
        while (stages[k].kind != DENSE || i >= stages[k].first + (stages[k].inputs + stages[k].bias) * stages[k].units)
            ++k;
        Stage<T>& stage = stages[k];
        const int j = i - stage.first, row = j / stage.units, unit = j % stage.units;
        visit(i, stage.weights[row * stage.row + unit], k, j, row, unit);
    }
}

// Copies the batch's rows into shared memory. rows: their numbers in x (samples, I), y (samples, U) and sample_weight
// (samples,), or null: the batch is rows first, first + 1, ….
template <typename T>
__device__ void gather(const Batch<T>& batch, const T* x, const T* y, const T* sample_weight, const int* rows,
                       int first, int features, int units) {
    const int columns = features + units + batch.weighted;
    for (int e = threadIdx.x; e < batch.rows * columns; e += blockDim.x) {
        const int b = e / columns, column = e % columns;
        const long long row = rows ? rows[b] : first + b;
        if (column < features) batch.x[b * features + column] = x[row * features + column];
        else if (column < features + units) batch.y[b * units + column - features] = y[row * units + column - features];
        else batch.weights[b] = sample_weight[row];
    }
    __syncthreads();
}

// Each stage on the outputs of the one before: ops.dense and the activations, in training ops.dropout. counter: how
// often each Dropout layer drew before, since its seed state.
template <typename T>
__device__ void forward(Stage<T>* stages, int count, const Batch<T>& batch, const long long* seed_states,
                        long long counter, bool training, bool xla) {
    for (int k = 0; k < count; ++k) {
        const Stage<T>& stage = stages[k];
        const InShared<T> inputs = k > 0 ? stages[k - 1].outputs : batch.x;
        const int size = batch.rows * stage.units;
        if (stage.kind == DENSE) {
            for (int e = threadIdx.x; e < size; e += blockDim.x) {
                const int b = e / stage.units, u = e % stage.units;
                T z = T(0);
                for (int i = 0; i < stage.inputs; ++i)
                    z += inputs[b * stage.inputs + i] * stage.weights[i * stage.row + u];
                if (stage.bias) z += stage.weights[stage.inputs * stage.row + u];
                stage.outputs[e] = activate(z, stage.activation);
            }
        } else if (training) {
            const T scale = dropout_scale<T>(stage.rate);
            const long long* state = seed_states + 2 * stage.draws;
            visit_flags<T>(size, state[0], state[1] + counter, stage.rate, xla, threadIdx.x, blockDim.x,
                           [&](long long e, bool kept) { stage.outputs[e] = kept ? inputs[e] * scale : T(0); });
        } else {
            for (int e = threadIdx.x; e < size; e += blockDim.x) stage.outputs[e] = inputs[e];
        }
        __syncthreads();
    }
}

// The losses of all samples, of a row each, times their weights, and their gradient:
// ops.categorical_crossentropy_from_logits and its backward, a thread a sample.
template <typename T>
__device__ void categorical_losses(const Stage<T>& last, const Batch<T>& batch) {
    const T mean = static_cast<T>(1.0 / batch.rows);
    for (int b = threadIdx.x; b < batch.rows; b += blockDim.x) {
        const T share = batch.share(b, 1, mean);
        const InShared<T> z = last.outputs + b * last.units, y = batch.y + b * last.units;
        int top = 0;
        for (int c = 1; c < last.units; ++c)
            if (z[c] > z[top]) top = c;
        T tail = T(0), loss = T(0);
        for (int c = 0; c < last.units; ++c)
            if (c != top) tail += exp_minus(z[top] - z[c]);
        const T log_sum = log1p(tail);
        for (int c = 0; c < last.units; ++c) {
            const T below_top = z[top] - z[c];
            const T gradient = c == top ? (T(1) - y[c]) - tail / (T(1) + tail)
                                        : exp_minus(below_top) / (T(1) + tail) - y[c];
            loss += y[c] * (log_sum + below_top);
            last.d_outputs[b * last.units + c] = gradient * share;
        }
        batch.losses[b] = loss * batch.weight(b);
    }
}

// The losses of all elements, times the weights of their samples, and for backward the gradient of their mean at the
// last stage's pre-activations.
template <typename T>
__device__ void losses(const Stage<T>& last, const Batch<T>& batch, int loss) {
    const T mean = static_cast<T>(1.0 / batch.rows / last.units);
    const int elements = loss == CATEGORICAL_CROSSENTROPY ? 0 : batch.rows * last.units;
    if (loss == CATEGORICAL_CROSSENTROPY) categorical_losses(last, batch);
    for (int e = threadIdx.x; e < elements; e += blockDim.x) {
        const int b = e / last.units;
        const T y = batch.y[e], output = last.outputs[e];
        const LossAndGradient<T> of = loss == BINARY_CROSSENTROPY ? FromLogits<T>()(y, output)
                                      : loss == SQUARED_ERROR     ? SquaredError<T>()(y, output)
                                                                  : AbsoluteError<T>()(y, output);
        batch.losses[e] = of.loss * batch.weight(b);
        const T gradient = of.gradient * batch.share(b, last.units, mean);
        last.d_outputs[e] = activate_backward(gradient, output, last.activation);
    }
    __syncthreads();
}

// The number of the first of the largest of a row's outputs, or of e^(z − max z) / Σ e^(z − max z) with SOFTMAX.
template <typename T>
__device__ inline int first_largest(const InShared<T> row, int units, int activation) {
    T most = row[0], sum = T(0), largest = T(0);
    for (int c = 1; c < units; ++c) most = row[c] > most ? row[c] : most;
    for (int c = 0; c < units; ++c) sum += exp_minus(most - row[c]);
    int found = 0;
    for (int c = 0; c < units; ++c) {
        const T output = activation == SOFTMAX ? exp_minus(most - row[c]) / sum : row[c];
        if (c == 0 || output > largest) {
            largest = output;
            found = c;
        }
    }
    return found;
}

// Whether prediction e is right: of element e, or with the categorical cross-entropy of sample e.
template <typename T>
__device__ inline bool is_right(const Stage<T>& last, const Batch<T>& batch, int e, int loss, int prediction,
                                T threshold) {
    if (loss == CATEGORICAL_CROSSENTROPY)
        return first_largest(last.outputs + e * last.units, last.units, prediction) ==
               first_largest(batch.y + e * last.units, last.units, LINEAR);
    return (activate(last.outputs[e], prediction) > threshold ? T(1) : T(0)) == batch.y[e];
}

// totals[0]: the mean of the losses; totals[1]: how many predictions are right; totals[2 …]: the penalty of each
// parameter of a stage that has one. A warp each. Returns the number of penalties.
template <typename T>
__device__ int sums(Stage<T>* stages, int count, const Batch<T>& batch, T* totals, int loss, int prediction,
                    double threshold) {
    const Stage<T>& last = stages[count - 1];
    const int size = batch.rows * (loss == CATEGORICAL_CROSSENTROPY ? 1 : last.units);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const T boundary = static_cast<T>(threshold);
    if (warp == 0) {
        const T sum = warp_total<T>(size, [&](int e) { return batch.losses[e]; });
        if (lane == 0) totals[0] = sum / static_cast<T>(size);
    }
    if (warp == 1 % warps) {
        const T right = warp_total<T>(
            size, [&](int e) { return is_right(last, batch, e, loss, prediction, boundary) ? T(1) : T(0); });
        if (lane == 0) totals[1] = right;
    }
    int penalties = 0;
    for (int k = 0; k < count; ++k) {
        const Stage<T>& stage = stages[k];
        for (int part = 0; stage.kind == DENSE && part < 1 + stage.bias; ++part) {
            const T l1 = stage.l1[part], l2 = stage.l2[part];
            if (l1 == T(0) && l2 == T(0)) continue;
            if (warp == (2 + penalties) % warps) {
                const InShared<T> weights = stage.weights + (part ? stage.inputs * stage.row : 0);
                const int elements = part ? stage.units : stage.inputs * stage.units;
                const auto weight = [&](int i) { return weights[i / stage.units * stage.row + i % stage.units]; };
                const T absolute = warp_total<T>(elements, [&](int i) { return fabs(weight(i)); });
                const T squares = warp_total<T>(elements, [&](int i) { return weight(i) * weight(i); });
                if (lane == 0) totals[2 + penalties] = l1 * absolute + l2 * squares;
            }
            ++penalties;
        }
    }
    __syncthreads();
    return penalties;
}

// From dL/d(pre-activations) of the last stage to that of every Dense layer: ops.dense_backward, ops.dropout_backward
// with the flags of forward, drawn again, and the activations' derivatives.
template <typename T>
__device__ void backward(Stage<T>* stages, int count, const Batch<T>& batch, const long long* seed_states,
                         long long counter, bool xla) {
    for (int k = count - 1; k > 0; --k) {
        const Stage<T>&stage = stages[k], &below = stages[k - 1];
        const int size = batch.rows * below.units;
        const auto hand_down = [&](long long e, T d) {
            below.d_outputs[e] = activate_backward(d, below.outputs[e], below.activation);
        };
        if (stage.kind == DENSE) {
            for (int e = threadIdx.x; e < size; e += blockDim.x) {
                const int b = e / below.units, i = e % below.units;
                T sum = T(0);
                for (int u = 0; u < stage.units; ++u)
                    sum += stage.d_outputs[b * stage.units + u] * stage.weights[i * stage.row + u];
                hand_down(e, sum);
            }
        } else {
            const T scale = dropout_scale<T>(stage.rate);
            const long long* state = seed_states + 2 * stage.draws;
            visit_flags<T>(size, state[0], state[1] + counter, stage.rate, xla, threadIdx.x, blockDim.x,
                           [&](long long e, bool kept) { hand_down(e, kept ? stage.d_outputs[e] * scale : T(0)); });
        }
        __syncthreads();
    }
}

// Each parameter's gradient, ops.dense_gradients, its penalty's, both clipped, then its decay and Adam's step, by one
// thread. rate: the learning rate, for the decay.
template <typename T>
__device__ void update(Stage<T>* stages, int parameters, const Batch<T>& batch, T alpha, T rate, const Rule<T>& rule) {
    visit_parameters<T>(stages, parameters, [&](int, T& weight, int k, int j, int row, int unit) {
        const Stage<T>& stage = stages[k];
        const bool is_bias = row == stage.inputs;
        const InShared<T> inputs = k > 0 ? stages[k - 1].outputs : batch.x;
        T gradient = T(0);
        for (int b = 0; b < batch.rows; ++b) {
            const T d = stage.d_outputs[b * stage.units + unit];
            gradient += is_bias ? d : inputs[b * stage.inputs + row] * d;
        }
        const T l1 = stage.l1[is_bias], l2 = stage.l2[is_bias];
        if (l1 != T(0) || l2 != T(0)) gradient += penalty_gradient(weight, l1, l2);
        if (rule.clipvalue > T(0)) gradient = clipped(gradient, rule.clipvalue);
        if (stage.decay[is_bias] != T(0)) weight -= weight * stage.decay[is_bias] * rate;
        T &m = stage.m[j], &v = stage.v[j];
        if (rule.amsgrad) amsgrad_update(weight, gradient, m, v, stage.v_hat[j], alpha, rule.adam);
        else adam_update(weight, gradient, m, v, alpha, rule.adam);
    });
    __syncthreads();
}

// The running means of an epoch: metrics.Mean of the loss, penalties included, of the loss without them, and of the
// accuracy.
template <typename T>
struct Means {
    T loss = T(0), plain = T(0), right = T(0), count = T(0);

    // A batch's sums, from `totals`; predictions: of each sample. Returns the batch's loss: training.total_loss.
    __device__ T add(const T* totals, int penalties, int rows, int predictions) {
        T total = totals[0];
        for (int i = 0; i < penalties; ++i) total += totals[2 + i];
        loss += total * static_cast<T>(rows);
        plain += totals[0] * static_cast<T>(rows);
        right += totals[1] / static_cast<T>(predictions);
        count += static_cast<T>(rows);
        return total;
    }
};

// train_epochs: twin of trainer.Trainer.fit with loops.fit and training.train_step, for Dense layers of plain
// activations and Dropout, Adam or AdamW, and binary or categorical cross-entropy from logits or the squared error. Block
// i trains model i of gridDim.x, all of one kind.
//   x, y, sample_weight: in, (samples, features), (samples, U), (samples,), the last null if no samples have weights.
//     order: in, (models, orders, samples), rows of x as they are taken; epoch e takes order e % orders.
//   x_held_out, y_held_out, w_held_out: in, as x, y and sample_weight, of `sets` sets of data to evaluate on after each
//     epoch, one set behind the other; set_sizes: in, (sets,), how many samples each has. All null if sets = 0.
//   stage_numbers: in, (stages, 4): enum StageKind, units, enum Activation, 1 with a bias. The last stage is Dense; of
//     the cross-entropies its activation is LINEAR, so that its outputs are logits.
//   stage_settings: in, (stages, 6): Dense: l1, l2 of the kernel, l1, l2 of the bias, the decay of either, 0 for none;
//     Dropout: the rate in (0, 1].
//   alphas, rates: in, (epochs · steps,): ops.adam_alphas and the learning rates. theta, m, v: in/out, (models,
//     parameters), arenas; v_hat: in/out, the same, or null: no amsgrad.
//   seed_states: in/out, (models, Dropout layers, 2), the states of their SeedGenerators, or null.
//   history: out, (models, epochs, 2 + 3 · sets): loss and accuracy in training; of each set at inference loss,
//     accuracy and loss without penalties.
//   stopped: out, (models,): 0, or with check_finite the number, from 1, of the step whose loss was not finite: the
//     weights are those before it.
//   prediction: the activation that makes predictions of the last stage's outputs; threshold: that of the accuracy.
//   clipvalue: gradients are clipped to ±clipvalue; 0: they are not.
// Shared memory: B · (features + 2 Σ units + 2U) numbers, B more with weights, and for a Dense layer (I + bias) · (U | 1)
// + 2 (I + bias) U, with amsgrad 3. blockDim.x a multiple of 32. Deterministic: each sum is of one thread, in order, or of
// one warp (warp_total), so the result depends on neither the block's size nor the number of models.
template <typename T>
__device__ void train_epochs(const T* x, const T* y, const T* sample_weight, const T* x_held_out, const T* y_held_out,
                             const T* w_held_out, const int* set_sizes, const int* order, const int* stage_numbers,
                             const double* stage_settings, const T* alphas, const T* rates, T* theta, T* m, T* v,
                             T* v_hat, long long* seed_states, T* history, int* stopped, int samples, int sets,
                             int features, int count, int dropouts, int parameters, int batch_size,
                             int held_out_batch_size, int epochs, int orders, int loss, int prediction,
                             double threshold, const Rule<T>& rule, bool xla, bool check_finite) {
    SHARED_ARRAY(stages, Stage<T>[MOST_STAGES]);
    SHARED_ARRAY(shared_batch, Batch<T>[1]);
    SHARED_ARRAY(totals, T[2 + 2 * MOST_STAGES]);
    DYNAMIC_SHARED(T, memory);
    if (threadIdx.x == 0)
        lay_out(stages, count, &shared_batch[0], {memory}, stage_numbers, stage_settings, features,
                batch_size > held_out_batch_size ? batch_size : held_out_batch_size, sample_weight != nullptr,
                rule.amsgrad);
    __syncthreads();
    Batch<T> batch = shared_batch[0];
    const Stage<T>& last = stages[count - 1];
    const long long model = blockIdx.x;
    theta += model * parameters;
    m += model * parameters;
    v += model * parameters;
    if (v_hat) v_hat += model * parameters;
    order += model * orders * samples;
    const int columns = 2 + 3 * sets;
    history += model * epochs * columns;
    if (seed_states) seed_states += model * dropouts * 2;
    visit_parameters<T>(stages, parameters, [&](int i, T& weight, int k, int j, int, int) {
        weight = theta[i];
        stages[k].m[j] = m[i];
        stages[k].v[j] = v[i];
        if (v_hat) stages[k].v_hat[j] = v_hat[i];
    });  // gather's barrier comes before anyone reads them

    const int predictions = loss == CATEGORICAL_CROSSENTROPY ? 1 : last.units;
    int step = 0, stopped_at = 0;
    for (int epoch = 0; epoch < epochs && stopped_at == 0; ++epoch) {
        const int* rows = order + static_cast<long long>(epoch % orders) * samples;
        Means<T> trained;
        T* row = history + static_cast<long long>(epoch) * columns;
        for (int start = 0; start < samples; start += batch_size, ++step) {
            batch.rows = samples - start < batch_size ? samples - start : batch_size;
            gather(batch, x, y, sample_weight, rows + start, 0, features, last.units);
            forward(stages, count, batch, seed_states, step, true, xla);
            losses(last, batch, loss);
            const int penalties = sums(stages, count, batch, totals, loss, prediction, threshold);
            const T of_batch = trained.add(totals, penalties, batch.rows, predictions);
            if (check_finite && of_batch - of_batch != T(0)) {
                stopped_at = ++step;
                break;
            }
            backward(stages, count, batch, seed_states, step, xla);
            update(stages, parameters, batch, alphas[step], rates[step], rule);
        }
        if (threadIdx.x == 0) {
            row[0] = trained.loss / trained.count;
            row[1] = trained.right / trained.count;
        }
        int first = 0;
        for (int set = 0; stopped_at == 0 && set < sets; first += set_sizes[set++]) {
            Means<T> found;
            for (int start = 0; start < set_sizes[set]; start += held_out_batch_size) {
                const int left = set_sizes[set] - start;
                batch.rows = left < held_out_batch_size ? left : held_out_batch_size;
                gather(batch, x_held_out, y_held_out, w_held_out, nullptr, first + start, features, last.units);
                forward(stages, count, batch, seed_states, 0, false, xla);
                losses(last, batch, loss);
                const int penalties = sums(stages, count, batch, totals, loss, prediction, threshold);
                found.add(totals, penalties, batch.rows, predictions);
            }
            if (threadIdx.x == 0) {
                row[2 + 3 * set] = found.loss / found.count;
                row[3 + 3 * set] = found.right / found.count;
                row[4 + 3 * set] = found.plain / found.count;
            }
        }
    }
    visit_parameters<T>(stages, parameters, [&](int i, T& weight, int k, int j, int, int) {
        theta[i] = weight;
        m[i] = stages[k].m[j];
        v[i] = stages[k].v[j];
        if (v_hat) v_hat[i] = stages[k].v_hat[j];
    });
    if (threadIdx.x == 0) {
        for (int k = 0; k < dropouts; ++k) seed_states[2 * k + 1] += step;
        stopped[model] = stopped_at;
    }
}

#define INSTANTIATE(T, suffix)                                                                                        \
    extern "C" __global__ void train_epochs_##suffix(                                                                 \
        const T* x, const T* y, const T* sample_weight, const T* x_held_out, const T* y_held_out,                     \
        const T* w_held_out, const int* set_sizes, const int* order, const int* stage_numbers,                        \
        const double* stage_settings, const T* alphas, const T* rates, T* theta, T* m, T* v, T* v_hat,                \
        long long* seed_states, T* history, int* stopped, int samples, int sets, int features, int stages,            \
        int dropouts, int parameters, int batch_size, int held_out_batch_size, int epochs, int orders,                \
        int loss, int prediction, double threshold, double one_minus_beta_1, double one_minus_beta_2, double epsilon, \
        double clipvalue, int xla, int check_finite) {                                                                \
        const Rule<T> rule{{static_cast<T>(one_minus_beta_1), static_cast<T>(one_minus_beta_2),                       \
                            static_cast<T>(epsilon)},                                                                 \
                           v_hat != nullptr,                                                                          \
                           static_cast<T>(clipvalue)};                                                                \
        train_epochs<T>(x, y, sample_weight, x_held_out, y_held_out, w_held_out, set_sizes, order, stage_numbers,     \
                        stage_settings, alphas, rates, theta, m, v, v_hat, seed_states, history, stopped, samples, sets,\
                        features, stages, dropouts, parameters, batch_size, held_out_batch_size, epochs, orders, loss,\
                        prediction, threshold, rule, xla != 0, check_finite != 0);                                    \
    }

INSTANTIATE(float, float32)
INSTANTIATE(double, float64)
