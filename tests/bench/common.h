/* What the fake engine and the load client share: a buffer that grows, the clock, and how to give up. */
#ifndef STOKER_BENCH_COMMON_H
#define STOKER_BENCH_COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL /* times are nanoseconds of the monotonic clock */

typedef struct {
    char *data;
    size_t length, capacity;
} buffer;

static inline __attribute__((noreturn, format(printf, 1, 2))) void give_up(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static inline void *checked(void *memory) {
    if (!memory) give_up("out of memory");
    return memory;
}

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

/* Make room for `more` bytes, and for a NUL behind them. */
static inline void reserve(buffer *b, size_t more) {
    if (b->length + more < b->capacity) return;
    b->capacity = (b->length + more + 1) * 2;
    b->data = checked(realloc(b->data, b->capacity));
}

static inline void append(buffer *b, const char *data, size_t length) {
    reserve(b, length);
    memcpy(b->data + b->length, data, length);
    b->length += length;
    b->data[b->length] = 0;
}

static inline __attribute__((format(printf, 2, 3))) void appendf(buffer *b, const char *format, ...) {
    va_list arguments;
    reserve(b, 1024);
    va_start(arguments, format);
    int length = vsnprintf(b->data + b->length, b->capacity - b->length, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= b->capacity - b->length) give_up("a text is longer than its buffer");
    b->length += (size_t)length;
}

static inline void drop_front(buffer *b, size_t length) {
    b->length -= length;
    memmove(b->data, b->data + length, b->length);
    if (b->data) b->data[b->length] = 0;
}

static inline long number(const char *text, const char *option) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < 0) give_up("%s: %s is not a number", option, text);
    return value;
}

/* As many open files as we may have: a thousand connections are more than the usual limit leaves. */
static inline void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit)) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static inline struct sockaddr_in address_of(const char *host, long port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) give_up("%s is not an IPv4 address", host);
    return address;
}

static inline void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

#endif
