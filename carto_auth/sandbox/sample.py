"""The sample table that every sandbox's warehouse has."""

from __future__ import annotations

#: Where CARTO keeps its demo data, too.
PROJECT, DATASET, TABLE = "carto-demo-data", "demo_tables", "world_cities"

#: name, country, population (of the city proper, rounded), longitude, latitude
WORLD_CITIES = [
    ("Tokyo", "Japan", 13_960_000, 139.6917, 35.6895),
    ("Delhi", "India", 16_790_000, 77.2090, 28.6139),
    ("Shanghai", "China", 24_870_000, 121.4737, 31.2304),
    ("São Paulo", "Brazil", 11_450_000, -46.6333, -23.5505),
    ("Mexico City", "Mexico", 9_210_000, -99.1332, 19.4326),
    ("Cairo", "Egypt", 10_200_000, 31.2357, 30.0444),
    ("Lagos", "Nigeria", 15_390_000, 3.3792, 6.5244),
    ("Istanbul", "Türkiye", 15_660_000, 28.9784, 41.0082),
    ("London", "United Kingdom", 8_870_000, -0.1278, 51.5074),
    ("Paris", "France", 2_100_000, 2.3522, 48.8566),
    ("Madrid", "Spain", 3_330_000, -3.7038, 40.4168),
    ("Sevilla", "Spain", 684_000, -5.9845, 37.3891),
    ("Berlin", "Germany", 3_680_000, 13.4050, 52.5200),
    ("New York", "United States", 8_260_000, -74.0060, 40.7128),
    ("Los Angeles", "United States", 3_820_000, -118.2437, 34.0522),
    ("Toronto", "Canada", 2_790_000, -79.3832, 43.6532),
    ("Buenos Aires", "Argentina", 3_120_000, -58.3816, -34.6037),
    ("Nairobi", "Kenya", 4_400_000, 36.8219, -1.2921),
    ("Jakarta", "Indonesia", 10_670_000, 106.8456, -6.2088),
    ("Sydney", "Australia", 5_450_000, 151.2093, -33.8688),
]
