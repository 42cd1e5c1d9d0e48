// Pairwise Gaussian log-densities, fused: no (B, M, D) tensor, forward and backward.
//
// With log-densities in bits,
//     L_ijd = c_jd - t_ijd^2,  t_ijd = (z_id - mu_jd) a_jd,
//     a_jd = sqrt(log2(e) / 2) exp(-logvar_jd / 2),  c_jd = -log2(e) / 2 (logvar_jd + log 2 pi),
// the two results are, for log-weights w_ij (in bits as well),
//     joint_i     = log2 sum_j 2^(sum_d L_ijd + w_ij),
//     marginal_id = log2 sum_j 2^(L_ijd + w_ij).
// The difference is taken before it is scaled: expanding the square loses all digits where a
// posterior is narrow.
//
// Rows of z are split among threads by the caller. Components come in tiles, rows in blocks, so
// that what the inner loops touch stays in the first-level cache; lanes run along components.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace {

constexpr int LANES = 16;
constexpr int ROWS = 4;                 // rows of a block: they share the loads of a component
constexpr int TILE = 512;               // components of a tile
constexpr float NEG_INF = -std::numeric_limits<float>::infinity();
constexpr float HALF_LOG2E = 0.72134752044448170368f;
constexpr float LN2 = 0.69314718055994530942f;

typedef float vec __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t ivec __attribute__((vector_size(LANES * sizeof(int32_t))));

inline vec load(const float* p) {
    vec v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void store(float* p, vec v) { std::memcpy(p, &v, sizeof v); }
inline vec all(float x) { return x - vec{}; }
inline vec max(vec a, vec b) { return a > b ? a : b; }
inline float sum(vec v) {
    float lanes[LANES];
    store(lanes, v);
    for (int width = LANES / 2; width; width /= 2)
        for (int k = 0; k < width; ++k) lanes[k] += lanes[k + width];
    return lanes[0];
}
inline float top(vec v) {
    float m = v[0];
    for (int k = 1; k < LANES; ++k) m = v[k] > m ? v[k] : m;
    return m;
}

// 2^x for x <= 0 (and a little above); 0 below 2^-100, so that no denormal is ever multiplied.
// Nearest integer by the magic constant, Taylor polynomial of degree 7 on [-1/2, 1/2].
inline vec exp2v(vec x) {
    const vec low = all(-126.0f), magic = all(12582912.0f);
    vec y = max(x, low);
    const vec shifted = y + magic;
    const vec f = y - (shifted - magic);
    ivec n;
    std::memcpy(&n, &shifted, sizeof n);
    vec p = all(1.52527338e-5f);
    p = p * f + 1.54035304e-4f;
    p = p * f + 1.33335581e-3f;
    p = p * f + 9.61812911e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    p = p * f + 1.0f;
    ivec bits;
    std::memcpy(&bits, &p, sizeof bits);
    bits += n << 23;
    std::memcpy(&p, &bits, sizeof p);
    return x < all(-100.0f) ? vec{} : p;
}

// What each call shares: the components, transposed and padded to whole vectors.
struct Components {
    const float *mean, *scale, *constant;  // (D, P)
    const float* total;                    // (P,): sum_d c_jd, then 0 or nan
    int64_t count, padded, width;          // M, P, D
    Components(const float* prepared, int64_t m, int64_t d)
        : count(m), padded((m + LANES - 1) / LANES * LANES), width(d) {
        mean = prepared;
        scale = mean + padded * d;
        constant = scale + padded * d;
        total = constant + padded * d;
    }
};

// Log-weights in bits: one number for all, a row for all rows, or a row each. A finite `base` is
// added to the results, and all weights count from it.
struct Weights {
    const float* table;  // null: `base` for all
    int64_t stride;      // between rows of the table; 0 for one row
    float base;
    const float* own;    // null: none; else the weight at (i, i + offset)
    int64_t own_stride, offset;
    float zero() const { return table || !std::isfinite(base) ? 0.0f : base; }
};

// Weights of a block of rows in one tile, (rows, TILE); false where all are 0.
inline bool tile_weights(const Weights& w, const Components& c, int64_t i0, int rows, int64_t j0,
                         int64_t n, float* out) {
    bool any = w.table != nullptr || !std::isfinite(w.base);
    if (!any && w.own)
        for (int r = 0; r < rows; ++r) {
            const int64_t k = i0 + r + w.offset - j0;
            any = any || (k >= 0 && k < n && j0 + k < c.count);
        }
    if (!any) return false;
    for (int r = 0; r < rows; ++r) {
        float* row = out + r * TILE;
        for (int64_t j = 0; j < n; ++j)
            row[j] = j0 + j >= c.count ? 0.0f
                     : w.table         ? w.table[(i0 + r) * w.stride + j0 + j]
                                       : w.base - w.zero();
        const int64_t k = i0 + r + w.offset - j0;
        if (w.own && k >= 0 && k < n && j0 + k < c.count)
            row[k] = w.own[(i0 + r) * w.own_stride] - w.zero();
    }
    return true;
}

// acc_rj = sum_d t^2 over one tile, in the order of d: the same numbers wherever it is called.
template <int R>
inline void squares(const Components& c, const float* z, int64_t j0, int64_t n, float* acc) {
    std::memset(acc, 0, sizeof(float) * R * TILE);
    for (int64_t d = 0; d < c.width; ++d) {
        const float *mu = c.mean + d * c.padded + j0, *a = c.scale + d * c.padded + j0;
        for (int64_t j = 0; j < n; j += LANES) {
            const vec m = load(mu + j), s = load(a + j);
            for (int r = 0; r < R; ++r) {
                const vec t = (z[r * c.width + d] - m) * s;
                store(acc + r * TILE + j, load(acc + r * TILE + j) + t * t);
            }
        }
    }
}

// Merge sum_j 2^(x_j) of one tile into a running (maximum, sum).
inline void merge(const float* x, int64_t n, float& maximum, float& total) {
    vec m = all(NEG_INF);
    for (int64_t j = 0; j < n; j += LANES) m = max(m, load(x + j));
    const float high = top(m);
    if (high == NEG_INF) return;
    if (high > maximum) {
        const float less = maximum - high;
        total = less < -100.0f ? 0.0f : total * std::exp2(less);
        maximum = high;
    }
    vec s{};
    for (int64_t j = 0; j < n; j += LANES) s += exp2v(load(x + j) - maximum);
    total += sum(s);
}

template <int R>
void forward_block(const Components& c, const Weights& w, const float* z, int64_t i0, int64_t j0,
                   float* joint, float* marginal) {
    // joint (R, 2) and marginal (R, D, 2): running maximum and sum.
    alignas(64) float values[R * TILE], acc[R * TILE], weights[R * TILE];
    const int64_t n = c.padded - j0 < TILE ? c.padded - j0 : TILE;
    const bool weighted = tile_weights(w, c, i0, R, j0, n, weights);
    const float* rows = z + i0 * c.width;
    std::memset(acc, 0, sizeof acc);
    for (int64_t d = 0; d < c.width; ++d) {
        const int64_t at = d * c.padded + j0;
        const float *mu = c.mean + at, *a = c.scale + at, *k = c.constant + at;
        for (int64_t j = 0; j < n; j += LANES) {
            const vec m = load(mu + j), s = load(a + j), q = load(k + j);
            for (int r = 0; r < R; ++r) {
                const vec t = (rows[r * c.width + d] - m) * s;
                store(acc + r * TILE + j, load(acc + r * TILE + j) + t * t);
                vec value = q - t * t;
                if (weighted) value += load(weights + r * TILE + j);
                store(values + r * TILE + j, value);
            }
        }
        for (int r = 0; r < R; ++r) {
            float* state = marginal + ((i0 + r) * c.width + d) * 2;
            merge(values + r * TILE, n, state[0], state[1]);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int64_t j = 0; j < n; j += LANES) {
            vec value = load(c.total + j0 + j) - load(acc + r * TILE + j);
            if (weighted) value += load(weights + r * TILE + j);
            store(values + j, value);
        }
        merge(values, n, joint[(i0 + r) * 2], joint[(i0 + r) * 2 + 1]);
    }
}

template <int R>
void backward_block(const Components& c, const Weights& w, const float* z, const float* joint,
                    const float* marginal, const float* grad_joint, const float* grad_marginal,
                    int64_t i0, int64_t j0, float* grad_z, float* grad_mean, float* grad_logvar) {
    alignas(64) float p_joint[R * TILE], weights[R * TILE];
    const int64_t n = c.padded - j0 < TILE ? c.padded - j0 : TILE;
    const bool weighted = tile_weights(w, c, i0, R, j0, n, weights);
    const float* rows = z + i0 * c.width;
    squares<R>(c, rows, j0, n, p_joint);
    for (int r = 0; r < R; ++r) {
        // A row of which every weight is 0 has the value -inf, and the gradient 0.
        const float maximum = joint[(i0 + r) * 2], total = joint[(i0 + r) * 2 + 1];
        const float g = total > 0.0f ? grad_joint[i0 + r] / total : 0.0f;
        for (int64_t j = 0; j < n; j += LANES) {
            vec value = load(c.total + j0 + j) - load(p_joint + r * TILE + j);
            if (weighted) value += load(weights + r * TILE + j);
            store(p_joint + r * TILE + j,
                  g == 0.0f ? vec{} : g * exp2v(value - maximum));
        }
    }
    for (int64_t d = 0; d < c.width; ++d) {
        const int64_t at = d * c.padded + j0;
        const float *mu = c.mean + at, *a = c.scale + at, *k = c.constant + at;
        float *gm = grad_mean + at, *gl = grad_logvar + at;
        float maximum[R], h[R];
        vec gz[R];
        for (int r = 0; r < R; ++r) {
            const float* state = marginal + ((i0 + r) * c.width + d) * 2;
            h[r] = state[1] > 0.0f ? grad_marginal[(i0 + r) * c.width + d] / state[1] : 0.0f;
            maximum[r] = state[1] > 0.0f ? state[0] : 0.0f;
            gz[r] = vec{};
        }
        for (int64_t j = 0; j < n; j += LANES) {
            const vec m = load(mu + j), s = load(a + j), q = load(k + j);
            vec first{}, second{};
            for (int r = 0; r < R; ++r) {
                const vec t = (rows[r * c.width + d] - m) * s;
                vec value = q - t * t;
                if (weighted) value += load(weights + r * TILE + j);
                const vec weight =
                    h[r] * exp2v(value - maximum[r]) + load(p_joint + r * TILE + j);
                const vec slope = weight * t;
                gz[r] += slope * s;
                first += slope;
                second += slope * t * LN2 - 0.5f * weight;
            }
            store(gm + j, load(gm + j) + first * s);
            store(gl + j, load(gl + j) + second);
        }
        for (int r = 0; r < R; ++r) grad_z[(i0 + r) * c.width + d] -= 2.0f * LN2 * sum(gz[r]);
    }
}

}  // namespace

extern "C" {

int64_t pairwise_version() { return 1; }

int64_t pairwise_prepared_size(int64_t m, int64_t d) {
    const int64_t padded = (m + LANES - 1) / LANES * LANES;
    return (3 * d + 1) * padded + 1;
}

// mean and logvar (M, D) -> prepared.
void pairwise_prepare(const float* mean, const float* logvar, int64_t m, int64_t d, float* out) {
    const Components c(out, m, d);
    float *mu = out, *a = const_cast<float*>(c.scale), *k = const_cast<float*>(c.constant);
    float* total = const_cast<float*>(c.total);
    float poison = 0.0f;  // a comparison loses nan, and the result must not
    for (int64_t j = 0; j < c.padded; ++j) {
        double all_d = 0.0;
        for (int64_t e = 0; e < d; ++e) {
            const int64_t to = e * c.padded + j;
            if (j >= m) {  // padding: a component of weight 0
                mu[to] = a[to] = 0.0f;
                k[to] = NEG_INF;
                continue;
            }
            const double lv = logvar[j * d + e];
            poison += 0.0f * mean[j * d + e] + (std::isnan(lv) ? NAN : 0.0f);
            const double constant = -0.72134752044448170368 * (lv + 1.83787706640934548356);
            mu[to] = mean[j * d + e];
            a[to] = static_cast<float>(0.84932180028801904272 * std::exp(-0.5 * lv));
            k[to] = static_cast<float>(constant);
            all_d += constant;
        }
        total[j] = j >= m ? NEG_INF : static_cast<float>(all_d);
    }
    total[c.padded] = poison;
}

// Rows begin..end of z: running maxima and sums in bits, joint (B, 2) and marginal (B, D, 2), and
// the two results in nats, (B,) and (B, D).
void pairwise_forward(const float* prepared, const float* z, int64_t m, int64_t d, int64_t begin,
                      int64_t end, const float* table, int64_t stride, float base,
                      const float* own, int64_t own_stride, int64_t offset, float* joint,
                      float* marginal, float* out_joint, float* out_marginal) {
    const Components c(prepared, m, d);
    const Weights w{table, stride, base, own, own_stride, offset};
    for (int64_t i = begin; i < end; ++i) {
        joint[2 * i] = NEG_INF;
        joint[2 * i + 1] = 0.0f;
        for (int64_t e = 0; e < d; ++e) {
            marginal[2 * (i * d + e)] = NEG_INF;
            marginal[2 * (i * d + e) + 1] = 0.0f;
        }
    }
    for (int64_t j0 = 0; j0 < c.padded; j0 += TILE) {
        int64_t i = begin;
        for (; i + ROWS <= end; i += ROWS) forward_block<ROWS>(c, w, z, i, j0, joint, marginal);
        for (; i < end; ++i) forward_block<1>(c, w, z, i, j0, joint, marginal);
    }
    const auto nats = [&](const float* state, float poison) {
        return static_cast<float>(0.69314718055994530942 *
                                  (state[0] + std::log2(double(state[1])) + w.zero())) + poison;
    };
    for (int64_t i = begin; i < end; ++i) {
        float poison = c.total[c.padded];
        for (int64_t e = 0; e < d; ++e) poison += 0.0f * z[i * d + e];
        out_joint[i] = nats(joint + 2 * i, poison);
        for (int64_t e = 0; e < d; ++e)
            out_marginal[i * d + e] = nats(marginal + 2 * (i * d + e), poison);
    }
}

// Gradients from rows begin..end: grad_z (B, D) of these rows, and what they add to grad_mean and
// grad_logvar, (D, P) each, zeroed by the caller.
void pairwise_backward(const float* prepared, const float* z, int64_t m, int64_t d, int64_t begin,
                       int64_t end, const float* table, int64_t stride, float base,
                       const float* own, int64_t own_stride, int64_t offset, const float* joint,
                       const float* marginal, const float* grad_joint, const float* grad_marginal,
                       float* grad_z, float* grad_mean, float* grad_logvar) {
    const Components c(prepared, m, d);
    const Weights w{table, stride, base, own, own_stride, offset};
    std::memset(grad_z + begin * d, 0, sizeof(float) * (end - begin) * d);
    for (int64_t j0 = 0; j0 < c.padded; j0 += TILE) {
        int64_t i = begin;
        for (; i + ROWS <= end; i += ROWS)
            backward_block<ROWS>(c, w, z, joint, marginal, grad_joint, grad_marginal, i, j0,
                                 grad_z, grad_mean, grad_logvar);
        for (; i < end; ++i)
            backward_block<1>(c, w, z, joint, marginal, grad_joint, grad_marginal, i, j0, grad_z,
                              grad_mean, grad_logvar);
    }
    const float two_ln2 = 2.0f * LN2;
    for (int64_t k = 0; k < d * c.padded; ++k) grad_mean[k] *= two_ln2;
}

}  // extern "C"
