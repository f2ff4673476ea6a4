/* An exported policy in C, through ONNX Runtime, beside the gain of the exact controller.

   cc -std=c99 -O2 onnx.c -I ONNXRUNTIME/include -L ONNXRUNTIME/lib -lonnxruntime -lm -o onnx
   ./onnx policy.onnx gain.txt 1.0 -0.5        the state; gain.txt holds K, a row per input

   It prints the average of the policy's actions at the state, -K x, and the time of a call for one action. */
#define _POSIX_C_SOURCE 199309L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "onnxruntime_c_api.h"

enum { DRAWS = 4096, CALLS = 2000, MOST = 64 };

static const OrtApi *ort;

static void check(OrtStatus *status) {
  if (status == NULL) return;
  fprintf(stderr, "onnxruntime: %s\n", ort->GetErrorMessage(status));
  exit(1);
}

/* Standard normal numbers, by Box and Muller. */
static float normal(void) {
  const double u = (rand() + 1.0) / (RAND_MAX + 2.0), v = (rand() + 1.0) / (RAND_MAX + 2.0);
  return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

/* The last entry of an input's shape: how many components an example has. */
static size_t components(OrtSession *session, size_t input) {
  OrtTypeInfo *type;
  const OrtTensorTypeAndShapeInfo *info;
  int64_t shape[3];
  size_t axes;
  check(ort->SessionGetInputTypeInfo(session, input, &type));
  check(ort->CastTypeInfoToTensorInfo(type, &info));
  check(ort->GetDimensionsCount(info, &axes));
  if (axes != 2) {
    fprintf(stderr, "expected a policy of one draw, exported without --best-of\n");
    exit(1);
  }
  check(ort->GetDimensions(info, shape, axes));
  ort->ReleaseTypeInfo(type);
  return (size_t)shape[1];
}

/* Actions for a batch of observations and noise. */
static void act(OrtSession *session, OrtMemoryInfo *memory, float *obs, size_t n, float *noise, size_t d, size_t batch,
                float *actions) {
  const char *inputs[] = {"obs", "noise"}, *outputs[] = {"action"};
  const int64_t shapes[2][2] = {{(int64_t)batch, (int64_t)n}, {(int64_t)batch, (int64_t)d}};
  const ONNXTensorElementDataType kind = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  OrtValue *given[2] = {NULL, NULL}, *found = NULL;
  float *data;
  size_t i;
  check(ort->CreateTensorWithDataAsOrtValue(memory, obs, batch * n * sizeof *obs, shapes[0], 2, kind, &given[0]));
  check(ort->CreateTensorWithDataAsOrtValue(memory, noise, batch * d * sizeof *noise, shapes[1], 2, kind, &given[1]));
  check(ort->Run(session, NULL, inputs, (const OrtValue *const *)given, 2, outputs, 1, &found));
  check(ort->GetTensorMutableData(found, (void **)&data));
  for (i = 0; i < batch * d; i++) actions[i] = data[i];
  ort->ReleaseValue(found);
  ort->ReleaseValue(given[0]);
  ort->ReleaseValue(given[1]);
}

int main(int argc, char **argv) {
  static float obs[DRAWS * MOST], noise[DRAWS * MOST], actions[DRAWS * MOST];
  OrtEnv *env;
  OrtSessionOptions *options;
  OrtSession *session;
  OrtMemoryInfo *memory;
  struct timespec begun, ended;
  size_t n, d, i, j;
  FILE *gain;
  if (argc < 4 || (gain = fopen(argv[2], "r")) == NULL) {
    fprintf(stderr, "usage: onnx policy.onnx gain.txt x1 x2 ...\n");
    return 2;
  }
  ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (ort == NULL) {
    fprintf(stderr, "the library is older than its header\n");
    return 1;
  }
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "policy", &env));
  check(ort->CreateSessionOptions(&options));
  check(ort->SetIntraOpNumThreads(options, 1));
  check(ort->CreateSession(env, argv[1], options, &session));
  check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  n = components(session, 0), d = components(session, 1);
  if ((size_t)argc != n + 3 || n > MOST || d > MOST) {
    fprintf(stderr, "expected %lu states, at most %d, and at most %d inputs\n", (unsigned long)n, MOST, MOST);
    return 2;
  }
  for (i = 0; i < DRAWS; i++) {
    for (j = 0; j < n; j++) obs[i * n + j] = (float)atof(argv[3 + j]);
    for (j = 0; j < d; j++) noise[i * d + j] = normal();
  }
  act(session, memory, obs, n, noise, d, DRAWS, actions);
  for (j = 0; j < d; j++) {
    double mean = 0, square = 0, best = 0, entry;
    for (i = 0; i < DRAWS; i++) mean += actions[i * d + j] / DRAWS;
    for (i = 0; i < DRAWS; i++) square += pow(actions[i * d + j] - mean, 2) / DRAWS;
    for (i = 0; i < n; i++) {
      if (fscanf(gain, "%lf", &entry) != 1) {
        fprintf(stderr, "expected %lu rows of %lu numbers in %s\n", (unsigned long)d, (unsigned long)n, argv[2]);
        return 2;
      }
      best -= entry * obs[i];
    }
    printf("input %lu: policy %.4f (deviation %.4f, error of the average %.4f), -Kx %.4f\n", (unsigned long)j + 1, mean,
           sqrt(square), sqrt(square / DRAWS), best);
  }
  clock_gettime(CLOCK_MONOTONIC, &begun);
  for (i = 0; i < CALLS; i++) act(session, memory, obs, n, noise + i * d, d, 1, actions);
  clock_gettime(CLOCK_MONOTONIC, &ended);
  printf("%.1f us for one action\n",
         (1e6 * (double)(ended.tv_sec - begun.tv_sec) + 1e-3 * (double)(ended.tv_nsec - begun.tv_nsec)) / CALLS);
  ort->ReleaseMemoryInfo(memory);
  ort->ReleaseSession(session);
  ort->ReleaseSessionOptions(options);
  ort->ReleaseEnv(env);
  fclose(gain);
  return 0;
}
