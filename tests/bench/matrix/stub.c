// A fast OpenAI-compatible endpoint for benchmarks: one thread, epoll, keep-alive. It must never be what is measured.
//
//   stub LATENCY [KNEE]     prints its port (127.0.0.1, chosen by the kernel), dies with its parent or after an hour
//
//   LATENCY  zero | const:S | mix:S:SLOW_S:SLOW_SHARE | lognormal:MEDIAN_S:SIGMA      S: seconds
//   KNEE     calls that run at once before goodput falls; 0 or none: latency does not depend on load
//
//   GET /stats                            its own counts, as JSON
//   GET /fail?mode=503&for_s=8            503 | reset | hang: what new calls meet for so many seconds
//
// Up to the knee latency grows with load and goodput still rises, as with continuous batching: L * (1 + running / knee).
// Past it calls wait for each other and goodput falls by a tenth per doubling, as measured on a real server.
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_FILES = 1 << 16, READ_AHEAD = 4096, EVENTS = 512, LIFETIME_S = 3600, BUCKETS = 400 };
enum mode { FINE, UNAVAILABLE, RESET, HANG };

struct connection {
  char *buffer;
  size_t length, capacity;
  bool busy;  // a request is being worked on: what follows it waits
};

struct due {
  double at_s, begun_s;
  int fd;
  uint32_t generation;  // a file number is used again: this tells whose answer it is
};

static struct connection *connections[MOST_FILES];
static uint32_t generations[MOST_FILES];
static struct due *heap;
static size_t heap_length, heap_capacity;
static int epoll_fd;
static char response[2048];
static size_t response_length;

static struct { unsigned long requests, connections, refused; long running, most_running; } counts;
static unsigned long took[BUCKETS];  // answered calls by duration: from 1 ms on, each bucket 3 % longer than the last
static struct { char kind; double first, second, third, knee; } latency;
static struct { enum mode mode; double ends_at_s; } failure;

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double chance(void) {  // xorshift64: the same draws in every run
  static uint64_t state = 88172645463325252ULL;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (double)(state >> 11) / 9007199254740992.0;
}

static double drawn_s(void) {
  switch (latency.kind) {
    case 'c': return latency.first;
    case 'm': return chance() < latency.third ? latency.second : latency.first;
    case 'l': {
      double normal = sqrt(-2 * log(chance() + 1e-12)) * cos(2 * M_PI * chance());
      return latency.first * exp(latency.second * normal);
    }
    default: return 0;
  }
}

static double loaded(double alone_s) {
  if (latency.knee <= 0) return alone_s;
  double load = (double)counts.running / latency.knee;
  return load <= 1 ? alone_s * (1 + load) : alone_s * 2 * load * (1 + 0.1 * log2(load));
}

static void note_duration(double seconds) {
  int bucket = seconds > 1e-3 ? (int)(log(seconds / 1e-3) / log(1.03)) : 0;
  took[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}

static double percentile_s(double share) {
  unsigned long all = 0, seen = 0;
  for (int i = 0; i < BUCKETS; i++) all += took[i];
  for (int i = 0; i < BUCKETS; i++)
    if (all && (double)(seen += took[i]) >= share * (double)all) return 1e-3 * pow(1.03, i + 1);
  return 0;
}

static void *grown(void *old, size_t bytes) {
  void *found = realloc(old, bytes);
  if (!found) { perror("realloc"); exit(1); }
  return found;
}

static void heap_push(struct due one) {
  if (heap_length == heap_capacity) {
    heap_capacity = heap_capacity ? 2 * heap_capacity : 1024;
    heap = grown(heap, heap_capacity * sizeof *heap);
  }
  size_t at = heap_length++;
  for (; at && heap[(at - 1) / 2].at_s > one.at_s; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
  heap[at] = one;
}

static struct due heap_pop(void) {
  struct due first = heap[0], last = heap[--heap_length];
  size_t at = 0;
  for (size_t child; (child = 2 * at + 1) < heap_length; at = child) {
    if (child + 1 < heap_length && heap[child + 1].at_s < heap[child].at_s) child++;
    if (last.at_s <= heap[child].at_s) break;
    heap[at] = heap[child];
  }
  heap[at] = last;
  return first;
}

static void leave(int fd, bool reset) {
  if (!connections[fd]) return;
  if (reset) setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
  close(fd);
  free(connections[fd]->buffer);
  free(connections[fd]);
  connections[fd] = NULL;
  generations[fd]++;
}

static void say(int fd, const char *bytes, size_t length) {
  while (length) {
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) { usleep(100); continue; }  // answers are small: a full buffer is a dead client's
    if (sent < 0) { leave(fd, false); return; }
    bytes += sent;
    length -= (size_t)sent;
  }
}

static void say_json(int fd, const char *status, const char *body) {
  char text[1024];
  int length = snprintf(text, sizeof text, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                        status, strlen(body), body);
  say(fd, text, (size_t)length);
}

static enum mode mode_now(void) { return failure.mode != FINE && now_s() < failure.ends_at_s ? failure.mode : FINE; }

static void control(int fd, const char *request) {
  char body[512], mode[8];
  double for_s;
  if (!strncmp(request, "GET /stats ", 11)) {
    snprintf(body, sizeof body,
             "{\"requests\":%lu,\"connections\":%lu,\"refused\":%lu,\"running\":%ld,\"most_running\":%ld,\"p50_s\":%.3f,\"p99_s\":%.3f}",
             counts.requests, counts.connections, counts.refused, counts.running, counts.most_running,
             percentile_s(0.5), percentile_s(0.99));
    say_json(fd, "200 OK", body);
  } else if (sscanf(request, "GET /fail?mode=%7[a-z0-9]&for_s=%lf", mode, &for_s) == 2) {
    failure.mode = *mode == '5' ? UNAVAILABLE : *mode == 'r' ? RESET : *mode == 'h' ? HANG : FINE;
    failure.ends_at_s = now_s() + for_s;
    say_json(fd, "200 OK", "{}");
  } else if (!strncmp(request, "GET /v1/models", 14)) {
    say_json(fd, "200 OK", "{\"object\":\"list\",\"data\":[{\"id\":\"simulated\",\"object\":\"model\"}]}");
  } else {
    say_json(fd, "404 Not Found", "{}");
  }
}

static void refuse(int fd, enum mode mode) {
  counts.refused++;
  if (mode == UNAVAILABLE) say_json(fd, "503 Service Unavailable", "{\"error\":{\"message\":\"overloaded\"}}");
  if (mode == RESET) leave(fd, true);
  if (mode == HANG) connections[fd]->busy = true;  // for ever: only the client's timeout ends it
}

static void answer(int fd) {
  double wait_s = drawn_s();
  if (wait_s <= 0) { say(fd, response, response_length); return; }
  if (++counts.running > counts.most_running) counts.most_running = counts.running;
  connections[fd]->busy = true;
  double begun_s = now_s();
  heap_push((struct due){begun_s + loaded(wait_s), begun_s, fd, generations[fd]});
}

static size_t body_length(const char *head, const char *end) {
  for (const char *line = head; (line = memmem(line, (size_t)(end - line), "\r\n", 2)); line += 2)
    if (!strncasecmp(line + 2, "content-length:", 15)) return strtoul(line + 17, NULL, 10);
  return 0;
}

static bool serve_one(int fd) {  // whether there may be another request in the buffer
  struct connection *one = connections[fd];
  if (!one || one->busy) return false;
  char *end = memmem(one->buffer, one->length, "\r\n\r\n", 4);
  if (!end) return false;
  size_t total = (size_t)(end - one->buffer) + 4 + body_length(one->buffer, end + 2);
  if (one->length < total) return false;
  if (!strncmp(one->buffer, "GET", 3)) {
    *end = 0;
    control(fd, one->buffer);
  } else {
    counts.requests++;
    enum mode mode = mode_now();
    if (mode == FINE) answer(fd); else refuse(fd, mode);
  }
  if (connections[fd] != one) return false;  // it has gone
  memmove(one->buffer, one->buffer + total, one->length -= total);
  return one->length > 0;
}

static void welcome(int listener) {
  for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
    if (fd >= MOST_FILES) { close(fd); continue; }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    counts.connections++;
    struct connection *one = grown(NULL, sizeof *one);
    *one = (struct connection){.buffer = grown(NULL, 2 * READ_AHEAD), .capacity = 2 * READ_AHEAD};
    connections[fd] = one;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.fd = fd});
  }
}

static void read_more(int fd) {
  struct connection *one = connections[fd];
  if (!one) return;
  if (one->capacity - one->length < READ_AHEAD) one->buffer = grown(one->buffer, one->capacity *= 2);
  ssize_t got = recv(fd, one->buffer + one->length, one->capacity - one->length, 0);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) { leave(fd, false); return; }
  one->length += (size_t)got;
  while (serve_one(fd)) {}
}

static void answer_due(void) {
  for (double now = now_s(); heap_length && heap[0].at_s <= now;) {
    struct due one = heap_pop();
    counts.running--;
    if (!connections[one.fd] || generations[one.fd] != one.generation) continue;  // the client has gone
    connections[one.fd]->busy = false;
    note_duration(now - one.begun_s);
    say(one.fd, response, response_length);
    while (serve_one(one.fd)) {}
  }
}

static void prepare_response(void) {
  const char *body =
      "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1760000000,\"model\":\"simulated\",\"choices\":[{\"index\":0,"
      "\"message\":{\"role\":\"assistant\",\"content\":\"{\\\"category\\\": \\\"other\\\", \\\"urgency\\\": \\\"normal\\\", "
      "\\\"summary\\\": \\\"benchmark answer\\\"}\",\"refusal\":null,\"tool_calls\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
      "\"usage\":{\"prompt_tokens\":212,\"completion_tokens\":16,\"total_tokens\":228}}";
  response_length = (size_t)snprintf(response, sizeof response,
      "HTTP/1.1 200 OK\r\nserver: stub\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", strlen(body), body);
}

static bool understood(const char *text) {
  latency.kind = text[0];
  if (!strcmp(text, "zero")) return true;
  if (sscanf(text, "const:%lf", &latency.first) == 1) return true;
  if (sscanf(text, "mix:%lf:%lf:%lf", &latency.first, &latency.second, &latency.third) == 3) return true;
  return sscanf(text, "lognormal:%lf:%lf", &latency.first, &latency.second) == 2;
}

static int listening(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  if (bind(fd, (struct sockaddr *)&address, length) || listen(fd, 8192) ||
      getsockname(fd, (struct sockaddr *)&address, &length)) {
    perror("listen");
    exit(1);
  }
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

int main(int argc, char **argv) {
  if (argc < 2 || !understood(argv[1])) {
    fprintf(stderr, "usage: stub zero|const:S|mix:S:SLOW_S:SHARE|lognormal:MEDIAN_S:SIGMA [KNEE]\n");
    return 2;
  }
  latency.knee = argc > 2 ? atof(argv[2]) : 0;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  alarm(LIFETIME_S);
  prepare_response();
  epoll_fd = epoll_create1(0);
  int listener = listening();
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN, .data.fd = listener});
  for (struct epoll_event ready[EVENTS];;) {
    double left_s = heap_length ? heap[0].at_s - now_s() : 1;
    if (left_s < 0) left_s = 0;
    struct timespec left = {(time_t)left_s, (long)(fmod(left_s, 1) * 1e9)};  // epoll_wait's milliseconds are too coarse
    int count = epoll_pwait2(epoll_fd, ready, EVENTS, &left, NULL);
    for (int i = 0; i < count; i++) {
      if (ready[i].data.fd == listener) welcome(listener); else read_more(ready[i].data.fd);
    }
    answer_due();
  }
}
