/* A policy as a header: a plant of two states under a flow, in C, with nothing but the standard library.

   entroflow lqr --system double_integrator --alpha 0.1 --seeds 1 --out out/lqr
   entroflow export out/lqr --format c --out examples/c/policy.h
   cc -std=c99 -O2 examples/c/header.c -lm -o header && ./header */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy.h"

/* Standard normal numbers, by Box and Muller. */
static policy_real normal(void) {
  const double u = (rand() + 1.0) / (RAND_MAX + 2.0), v = (rand() + 1.0) / (RAND_MAX + 2.0);
  return (policy_real)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

int main(void) {
  policy_real x[policy_obs_size] = {1}, noise[policy_noise_size], u[policy_action_size], log_prob[1];
  for (int t = 0; t <= 100; t++) {
    for (int i = 0; i < policy_noise_size; i++) noise[i] = normal();
    policy_act(x, noise, u, log_prob);
    if (t % 20 == 0) printf("t %3d  x %7.3f %7.3f  u %7.3f  log p(u) %6.3f\n", t, x[0], x[1], u[0], log_prob[0]);
    const policy_real position = x[0] + (policy_real)0.1 * x[1] + (policy_real)0.005 * u[0];
    x[1] += (policy_real)0.1 * u[0];
    x[0] = position;
  }
  return 0;
}
