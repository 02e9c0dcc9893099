// The queue of `run` in SimGrid's S4U: an actor per request, a semaphore with as many slots as there
// are servers. Arguments: tenants, servers, kernels.
#include <simgrid/s4u.hpp>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>

namespace sg4 = simgrid::s4u;

static const int per_request = 10;
static const double mean_s = 1e-4, load = 0.8;
static long events, ended, answered;
static double latency;

int main(int argc, char** argv) {
    sg4::Engine engine(&argc, argv);
    if (argc != 4) return 2;
    const int tenants = std::atoi(argv[1]), servers = std::atoi(argv[2]);
    const long kernels = std::atol(argv[3]);
    auto* zone = sg4::create_full_zone("zone");
    auto* host = zone->create_host("gpu", 1e9);
    zone->seal();
    auto slots = sg4::Semaphore::create(servers);
    std::mt19937_64 draws(1);
    std::exponential_distribution<double> service(1 / mean_s);
    std::exponential_distribution<double> gap(load * servers / (per_request * mean_s) / tenants);
    auto request = [&] {
        const double arrived = sg4::Engine::get_clock();
        for (int k = 0; k < per_request; ++k) {
            slots->acquire();
            sg4::this_actor::sleep_for(service(draws));
            slots->release();
            ++events;
            if (++ended == kernels) {
                sg4::Actor::kill_all();
                sg4::this_actor::exit();
            }
        }
        ++answered;
        latency += sg4::Engine::get_clock() - arrived;
    };
    for (int t = 0; t < tenants; ++t)
        sg4::Actor::create("tenant", host, [&] {
            while (ended < kernels) {
                sg4::this_actor::sleep_for(gap(draws));
                ++events;
                sg4::Actor::create("request", host, request);
            }
        });
    const auto start = std::clock();
    engine.run();
    const double seconds = double(std::clock() - start) / CLOCKS_PER_SEC;
    std::printf("%ld %.6f %.3f\n", events, seconds, latency / answered * 1e6);
}
