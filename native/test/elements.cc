// Cases of the elementwise kernels and the reductions.
#include "harness.h"

namespace {

// The order of UNARY in src/backend/kernels.ts.
enum { NEG, EXP, LOG, SQRT, RSQRT, SQUARE, ABS, RECIPROCAL, SIGMOID, SILU, SOFTPLUS, TANH, RELU, GELU, SIN, COS, UNARIES };

Ball unary(int op, double x) {
  switch (op) {
    case NEG: return exactly(-x);
    case EXP: return exp_of(x);
    case LOG: return log_of(x);
    case SQRT: return exactly(sqrt(x));
    case RSQRT: return rsqrt_of(x);
    case SQUARE: return exactly(x * x);
    case ABS: return exactly(fabs(x));
    case RECIPROCAL: return exactly(1 / x);
    case SIGMOID: return sigmoid_of(x);
    case SILU: return silu_of(x);
    case SOFTPLUS: return softplus_of(x);
    case TANH: return tanh_of(x);
    case RELU: return exactly(x < 0 ? 0 : x);
    case GELU: return gelu_of(x);
    case SIN: return sin_of(x);
    default: return cos_of(x);
  }
}

// op'(x), from the y that was given or computed again.
Ball slope(int op, double x, Ball y) {
  switch (op) {
    case NEG: return -1;
    case EXP: return y;
    case LOG: return Ball(1) / x;
    case SQRT: return Ball(0.5) / y;
    case RSQRT: return Ball(-0.5) * y * y * y;
    case SQUARE: return Ball(2) * x;
    case ABS: return x > 0 ? 1 : x < 0 ? -1 : x;
    case RECIPROCAL: return Ball(-1) * y * y;
    case SIGMOID: return y * (Ball(1) - y);
    case SILU: return silu_grad_of(x);
    case SOFTPLUS: return x > 20 ? Ball(1) : sigmoid_of(x);
    case TANH: return Ball(1) - y * y;
    case RELU: return x > 0 ? 1 : 0;
    case GELU: return gelu_grad_of(x);
    case SIN: return cos_of(x);
    default: return apply(truth::minus_sin, 2, x, [](double a) { return fmin(1, fabs(a)); });
  }
}

void test_unary() {
  for (int op = 0; op < UNARIES; op++) {
    const bool positive = op == LOG || op == SQRT || op == RSQRT;
    for (const int64_t count : {0, 1, 3, 7, 33, 129, 40001}) {
      Floats x = positive ? uniform(count, 1e-3, 9) : normal(count, 4), y(count);
      const Floats dy = normal(count);
      Balls want, dx;
      for (int64_t i = 0; i < count; i++) {
        want.push_back(unary(op, x[i]));
        y[i] = (float)want[i].v;
        dx.push_back(Ball(dy[i]) * slope(op, x[i], {y[i], rounded(want[i]).r}));
      }
      const std::string label = std::to_string(op) + " of " + std::to_string(count);
      Call("unary").label(label).num(op).in(x).out(want).num(count).check();
      Call("unaryGrad").label(label).num(op).in(x).in(y).in(dy).out(dx).num(count).check();
    }
    // What is infinite or no number must come out as such, in every lane.
    for (const float odd : {INFINITY, -INFINITY, NAN, 0.0f, -0.0f, 3e38f, 1e-38f}) {
      if ((op == SIN || op == COS) && fabsf(odd) > 1e4f) continue;
      if ((op == SILU || op == GELU) && odd == -INFINITY) continue;  // infinity times 0
      const Floats x(19, odd);
      Call("unary").label(std::to_string(op) + " of " + std::to_string(odd)).num(op).in(x)
          .out(Balls(19, unary(op, odd))).num(19).check();
    }
  }
}

double binary(int op, double a, double b) {
  switch (op) {
    case 0: return a + b;
    case 1: return a - b;
    case 2: return a * b;
    case 3: return a / b;
    case 4: return isnan(a) || isnan(b) ? NAN : a > b ? a : b;
    default: return isnan(a) || isnan(b) ? NAN : a < b ? a : b;
  }
}

void test_binary() {
  const int64_t layouts[][12] = {
      // extents, strides of a, strides of b
      {1, 1, 1, 40001, 0, 0, 0, 1, 0, 0, 0, 1}, {1, 1, 1, 5, 0, 0, 0, 1, 0, 0, 0, 0},
      {2, 3, 5, 7, 105, 35, 7, 1, 0, 7, 0, 1},  {1, 3, 33, 17, 0, 17, 0, 1, 0, 0, 17, 1},
      {1, 1, 19, 35, 0, 0, 1, 19, 0, 0, 35, 1}, {1, 1, 3, 0, 0, 0, 1, 1, 0, 0, 1, 1},
  };
  for (const auto& s : layouts) {
    const int64_t count = s[0] * s[1] * s[2] * s[3];
    int64_t reach[2] = {1, 1};
    for (int i = 0; i < 8; i++) reach[i / 4] += (s[i % 4] > 0 ? s[i % 4] - 1 : 0) * s[4 + i];
    Floats a = normal(reach[0]), b = normal(reach[1]);
    a[reach[0] / 2] = NAN, b[reach[1] / 3] = INFINITY;
    for (int op = 0; op < 6; op++) {
      Balls y;
      for (int64_t i = 0; i < count; i++) {
        const int64_t at[4] = {i / (s[1] * s[2] * s[3]), i / (s[2] * s[3]) % s[1], i / s[3] % s[2], i % s[3]};
        int64_t ia = 0, ib = 0;
        for (int axis = 0; axis < 4; axis++) ia += at[axis] * s[4 + axis], ib += at[axis] * s[8 + axis];
        y.push_back(exactly(binary(op, a[ia], b[ib])));
      }
      Call call("binary");
      call.label(std::to_string(op) + " over " + std::to_string(count)).num(op).in(a).in(b).out(y);
      for (const int64_t value : s) call.num((double)value);
      call.check();
    }
  }
}

void test_maps() {
  for (const int64_t count : {0, 1, 6, 37, 40001}) {
    const Floats x = normal(count), y = normal(count);
    Balls affine, axpy;
    for (int64_t i = 0; i < count; i++) {
      affine.push_back(Ball(x[i]) * -1.375 + 0.625);
      axpy.push_back(Ball(y[i]) + Ball(0.75) * x[i]);
    }
    const std::string label = std::to_string(count);
    Call("affine").label(label).in(x).out(affine).num(-1.375).num(0.625).num(count).check();
    Call("axpy").label(label).in(x).io(y, axpy).num(0.75).num(count).check();
    Call("fill").label(label).out(Balls(count, 2.5)).num(2.5).num(count).check();
  }
}

void test_adamw() {
  const double lr = 0.01, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, decay = 0.1, correction1 = 0.19, correction2 = 0.002;
  for (const int64_t count : {1, 21, 20001}) {
    for (const double squares : {-1.0, 0.25, 400.0}) {
      const Floats param = normal(count), grad = normal(count), m = normal(count, 0.1), v = uniform(count, 0, 0.1);
      Ball clip = 1;
      if (squares > 1) clip = Ball(1) / (sqrt_of(squares) + constant(1e-6));
      Balls p1, m1, v1;
      for (int64_t i = 0; i < count; i++) {
        const Ball g = Ball(grad[i]) * clip;
        m1.push_back(Ball(m[i]) + constant(1 - beta1) * (g - m[i]));
        v1.push_back(constant(beta2) * v[i] + constant(1 - beta2) * g * g);
        const Ball size = sqrt_of(v1[i]) / constant(sqrt(correction2)) + constant(eps);
        p1.push_back(constant(1 - lr * decay) * param[i] - constant(lr / correction1) * m1[i] / size);
      }
      Call call("adamw");
      call.label(std::to_string(count)).io(param, p1).in(grad).io(m, m1).io(v, v1);
      call.maybe(squares < 0 ? Floats() : Floats{(float)squares});
      call.nums({(double)count, lr, beta1, beta2, eps, decay, correction1, correction2, 1.0}).check();
    }
  }
}

void test_reductions() {
  const int64_t shapes[][3] = {{1, 40001, 1}, {1, 1, 1},     {5, 37, 1},   {700, 100, 1}, {3, 7, 5},
                               {2, 1100, 19}, {1, 3, 20001}, {4, 5, 133}, {3, 1, 1}};
  for (const auto& s : shapes) {
    const int64_t outer = s[0], axis = s[1], inner = s[2];
    for (const bool odd : {false, true}) {
      Floats x = normal(outer * axis * inner);
      if (odd) x[x.size() / 2] = NAN, x[x.size() / 3] = INFINITY;
      Balls sums, largest;
      Ints where;
      for (int64_t i = 0; i < outer * inner; i++) {
        const float* from = x.data() + i / inner * axis * inner + i % inner;
        Sum sum;
        double most = -INFINITY;
        int32_t best = 0;
        for (int64_t j = 0; j < axis; j++) {
          const float value = from[j * inner];
          sum += value;
          most = isnan(value) || isnan(most) ? NAN : value > most ? value : most;
          if (value > from[best * inner]) best = (int32_t)j;
        }
        sums.push_back(sum.total());
        largest.push_back(most);
        where.push_back(best);
      }
      const std::string label = std::to_string(outer) + ' ' + std::to_string(axis) + ' ' + std::to_string(inner);
      const auto sizes = {(double)outer, (double)axis, (double)inner};
      Call("sum").label(label).in(x).out(sums).nums(sizes).check();
      Call("max").label(label).in(x).out(largest).nums(sizes).check();
      if (!odd) Call("argmax").label(label).in(x).out_bits(where).nums(sizes).check();
    }
  }
  Call("sum").label("of nothing").in({}).out(Balls(6, 0.0)).nums({2, 0, 3}).check();
  for (const int64_t count : {0, 1, 19, 100001}) {
    const Floats x = normal(count);
    double total = 0;
    for (const float value : x) total += (double)value * value;
    for (const int accumulate : {0, 1}) {  // added up in float64, rounded once; one is spare
      const Ball want = rounded(total + accumulate * 3.0, 2);
      Call("sumSquares").label(std::to_string(count)).in(x).io({3.0f}, {want}).nums({(double)count, (double)accumulate}).check();
    }
  }
}

}  // namespace

void test_elements() {
  test_unary();
  test_binary();
  test_maps();
  test_adamw();
  test_reductions();
}
